"""Multiple choice: an example's gradient is the sum over its sequences; folded labels on the tests' side."""

from __future__ import annotations

import pytest
import torch

from tests import oracles
from tests.attribution.instance.cases import (
    BUDGET,
    CHOICES,
    choice_head,
    make_choices,
    make_head,
    make_split,
    prepared_scores,
    score_matrix,
)
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.curvature import ggn_matrix, ggn_trace
from twinlens.attribution.instance.factors import combine, compact, dense, gram, project, squared_norms
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.head_gradients import (
    differentiable_head,
    head_factors,
    loss_cotangents,
    loss_factors,
)
from twinlens.attribution.instance.hessian import exact_hessian, hessian_products, hessian_trace
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.stream import stream_scores

HEADS = ["linear", "linear_bias", "mlp", "mlp_no_bias", "deep"]
FOLD = torch.tensor([0, 1, 1])


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def gradients(split, weights_only=False):
    return oracles.head_gradients(split.head, split.features, split.labels, weights_only, split.fold)


@pytest.mark.parametrize("params", ["weight", "head"])
@pytest.mark.parametrize("kind", HEADS)
def test_gradients_and_their_products_equal_autograd(kind, params):
    head = choice_head(kind)
    prepared = differentiable_head(head, params, CHOICES)
    left, right = make_choices(head, 5), make_choices(head, 3, seed=2)
    expected = gradients(left, params == "weight")
    raw = head_factors(prepared, left.features, loss_cotangents(prepared, left))
    other = loss_factors(prepared, right)
    assert expected.shape[1] == prepared.n_parameters
    assert prepared.n_classes == CHOICES
    for factors in (raw, compact(raw)):
        assert_close(dense(factors), expected)
        assert_close(squared_norms(factors), expected.square().sum(1))
        vectors = torch.randn(4, prepared.n_parameters, dtype=torch.float64)
        assert_close(project(factors, vectors), vectors @ expected.T)
        coefficients = torch.randn(4, len(expected), dtype=torch.float64)
        assert_close(combine(factors, coefficients), coefficients @ expected)
    assert_close(gram(compact(raw), other), expected @ gradients(right, params == "weight").T)
    assert_close(gram(raw, raw), expected @ expected.T)


def test_a_choice_heads_gradient_is_one_vector():
    head = choice_head("linear")
    (factors,) = loss_factors(differentiable_head(head, "head", CHOICES), make_choices(head, 5))
    assert factors.sequences == 1
    assert factors.deltas.numel() == 5 * head.in_features


@pytest.mark.parametrize("memory_budget", [1, BUDGET])
@pytest.mark.parametrize("kind", HEADS)
def test_curvatures_equal_the_oracles(kind, memory_budget):
    head = choice_head(kind)
    train = make_choices(head, 6)
    prepared = differentiable_head(head, "head", CHOICES)
    hessian = oracles.mean_loss_hessian(head, train.features, train.labels)
    ggn = oracles.mean_loss_ggn(head, train.features)
    assert_close(exact_hessian(prepared, train, memory_budget), hessian)
    assert_close(ggn_matrix(prepared, train.features, memory_budget), ggn)
    assert ggn_trace(prepared, train.features, memory_budget) == pytest.approx(float(ggn.trace()), rel=1e-10)
    assert hessian_trace(prepared, train, memory_budget) == pytest.approx(float(hessian.trace()), rel=1e-10)
    vectors = torch.randn(3, len(hessian), dtype=torch.float64)
    assert_close(hessian_products(prepared, train, vectors), 6 * vectors @ hessian)


@pytest.mark.parametrize("solver", ["direct", "dual", "cg"])
@pytest.mark.parametrize("kind", HEADS)
def test_influence_equals_the_explicit_inverse(kind, solver):
    head = choice_head(kind)
    train, test = make_choices(head, 9), make_choices(head, 4, seed=2)
    matrix = oracles.mean_loss_ggn(head, train.features)
    scorer = Influence(solver=solver, damping=0.05, cg_tolerance=1e-12).prepare(train, BUDGET)
    damped = matrix + 0.05 * matrix.trace() / len(matrix) * torch.eye(len(matrix), dtype=matrix.dtype)
    assert_close(score_matrix(scorer, test), gradients(test) @ torch.linalg.inv(damped) @ gradients(train).T)
    own = (gradients(train) @ torch.linalg.inv(damped) @ gradients(train).T).diagonal()
    assert_close(scorer.self_influence(), own)


@pytest.mark.parametrize("solver", ["direct", "cg"])
def test_hessian_influence_equals_the_explicit_inverse(solver):
    head = choice_head("mlp")
    train, test = make_choices(head, 9), make_choices(head, 4, seed=2)
    matrix = oracles.mean_loss_hessian(head, train.features, train.labels)
    damping = 0.1 + 2 * max(0.0, -float(torch.linalg.eigvalsh(matrix)[0])) * len(matrix) / float(matrix.trace())
    damped = matrix + damping * matrix.trace() / len(matrix) * torch.eye(len(matrix), dtype=matrix.dtype)
    actual = prepared_scores(Influence("hessian", solver, damping, cg_tolerance=1e-12), train, test)
    assert_close(actual, gradients(test) @ torch.linalg.inv(damped) @ gradients(train).T)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_gradient_similarity_equals_autograd(kind, similarity):
    head = choice_head(kind)
    train, test = make_choices(head, 9), make_choices(head, 4, seed=2)
    left, right = gradients(test), gradients(train)
    expected = left @ right.T
    if similarity == "cosine":
        expected = expected / left.norm(dim=1)[:, None] / right.norm(dim=1)
    assert_close(prepared_scores(GradientSimilarity(similarity), train, test), expected)


@pytest.mark.parametrize("method", [GradientSimilarity(), Influence(solver="direct"), Influence(solver="dual")])
def test_results_do_not_depend_on_the_blocks(method):
    head = choice_head("mlp")
    train, test = make_choices(head, 13), make_choices(head, 5, seed=2)
    scorer = method.prepare(train, BUDGET)
    whole, _ = stream_scores(scorer, test, torch.arange(5), 4, BUDGET)
    parts, _ = stream_scores(scorer, test, torch.arange(5), 4, 1)
    assert torch.equal(parts.top_index, whole.top_index)


def test_one_sequence_is_classification():
    head = make_head("mlp")
    flat, test = make_split(head, 8), make_split(head, 3, seed=2)
    train, tests = (HeadInputs(s.features[:, None], s.labels, head) for s in (flat, test))
    for method in (GradientSimilarity(), Influence(solver="direct"), Influence(solver="dual")):
        assert torch.equal(prepared_scores(method, train, tests), prepared_scores(method, flat, test))


def test_another_number_of_choices_is_refused():
    head = choice_head("linear")
    scorer = GradientSimilarity().prepare(make_choices(head, 4), BUDGET)
    with pytest.raises(UserError, match=r"have 2 sequence\(s\) each, but the train split has 4"):
        scorer.query(make_choices(head, 3, choices=2), torch.arange(3))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_folded_tests_equal_autograd(kind):
    head = make_head(kind)
    train, plain = make_split(head, 9), make_split(head, 6, seed=2)
    test = HeadInputs(plain.features, FOLD[plain.labels], head, FOLD)
    assert test.rows(1, 4).fold is FOLD
    assert_close(prepared_scores(GradientSimilarity(), train, test), gradients(test) @ gradients(train).T)
    matrix = oracles.mean_loss_ggn(head, train.features)
    damped = matrix + 0.1 * matrix.trace() / len(matrix) * torch.eye(len(matrix), dtype=matrix.dtype)
    expected = gradients(test) @ torch.linalg.inv(damped) @ gradients(train).T
    for solver in ("direct", "dual"):
        assert_close(prepared_scores(Influence(solver=solver), train, test), expected)


def test_a_fold_of_single_classes_changes_nothing():
    head = make_head("mlp")
    train, test = make_split(head, 9), make_split(head, 6, seed=2)
    folded = HeadInputs(test.features, test.labels, head, torch.arange(3))
    assert_close(
        prepared_scores(GradientSimilarity(), train, folded), prepared_scores(GradientSimilarity(), train, test)
    )


def test_a_certain_folded_prediction_has_a_finite_gradient():
    head = make_head("linear")
    with torch.no_grad():
        head.weight.mul_(1e4)
    split = make_split(head, 6)
    factors = loss_factors(
        differentiable_head(head, "head"), HeadInputs(split.features, FOLD[split.labels], head, FOLD)
    )
    assert torch.isfinite(dense(factors)).all()


def test_folded_train_labels_are_refused():
    head = make_head("linear")
    split = make_split(head, 4)
    train = HeadInputs(split.features, FOLD[split.labels], head, FOLD)
    for method in (GradientSimilarity(), Influence()):
        with pytest.raises(UserError, match="train split's labels are folded"):
            method.prepare(train, BUDGET)


def test_labels_beyond_the_fold_are_refused():
    head = make_head("linear")
    split = make_split(head, 3)
    scorer = GradientSimilarity().prepare(split, BUDGET)
    test = HeadInputs(split.features, torch.tensor([0, 2, 1]), head, FOLD)
    with pytest.raises(UserError, match=r"no label within 0 … 1 \(index 1\)"):
        scorer.query(test, torch.arange(3))
