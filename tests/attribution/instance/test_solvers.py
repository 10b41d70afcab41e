"""Iterative solvers and approximate curvatures of influence functions."""

from __future__ import annotations

import math

import pytest
import torch

from tests import oracles
from tests.attribution.instance.cases import (
    BUDGET,
    choice_head,
    make_choices,
    make_head,
    make_split,
    prepared_scores,
    score_matrix,
)
from tests.combinations import half_long
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.cg import ConjugateGradientScorer, iterative_plan
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.head_gradients import differentiable_head
from twinlens.attribution.instance.hessian import hessian_products, hessian_trace
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.lissa import Recursion
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer
from twinlens.attribution.instance.stream import stream_scores

METHODS = {
    "cg": Influence(solver="cg"),
    "lissa": Influence(solver="lissa", damping=0.05, lissa_scale=5.0, lissa_batch=4),
    "kfac": Influence("kfac"),
    "ekfac": Influence("ekfac"),
    "identity": Influence("identity"),
}


def splits(kind, n=12):
    head = make_head(kind)
    return make_split(head, n), make_split(head, 4, seed=2)


def gradients(split, weights_only=False):
    return oracles.head_gradients(split.head, split.features, split.labels, weights_only)


def assert_close(actual, expected, tolerance=1e-8):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


# -- conjugate gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
@pytest.mark.parametrize("kind", ["linear_bias", "mlp"])
def test_cg_tends_to_the_direct_solution(kind, curvature):
    train, test = splits(kind)
    damping = 10.0 if curvature == "hessian" and kind == "mlp" else 0.5  # an untrained mlp's Hessian is indefinite
    exact = prepared_scores(Influence(curvature, "direct", damping), train, test)
    errors = []
    for tolerance in (1e-1, 1e-4, 1e-12):
        scorer = Influence(curvature, "cg", damping, cg_tolerance=tolerance).prepare(train, BUDGET)
        errors.append(float((score_matrix(scorer, test) - exact).norm() / exact.norm()))
        assert scorer.describe()["residual"] <= 1.1 * tolerance
        assert scorer.describe()["steps"] > 0
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-10


@pytest.mark.parametrize("kind", ["linear_bias", "mlp", "deep"])
def test_hessian_products_and_trace_equal_the_matrix(kind):
    train, _ = splits(kind)
    for params in ("weight", "head"):
        head = differentiable_head(train.head, params)
        matrix = oracles.mean_loss_hessian(train.head, train.features, train.labels, params == "weight")
        vectors = torch.randn(3, len(matrix), dtype=torch.float64)
        assert_close(hessian_products(head, train, vectors), 12 * vectors @ matrix)
        for budget in (1, BUDGET):
            assert hessian_trace(head, train, budget) == pytest.approx(float(matrix.trace()), rel=1e-10)


def test_cg_that_does_not_converge_is_refused_with_its_residual():
    train, _ = splits("mlp")
    with pytest.raises(UserError, match=r"residual of [\d.e-]+ in 2 steps; expected at most cg_tolerance=1e-12"):
        Influence(solver="cg", damping=1e-3, cg_tolerance=1e-12, cg_max_steps=2).prepare(train, BUDGET)


def test_cg_on_an_indefinite_hessian_is_refused_with_its_curvature():
    train, _ = splits("mlp")
    with torch.no_grad():
        for p in train.head.parameters():
            p.mul_(3)
    with pytest.raises(UserError, match=r"direction of curvature -[\d.]+ and λ is"):
        Influence("hessian", "cg", damping=1e-6).prepare(train, BUDGET)


@pytest.mark.long
def test_auto_falls_back_to_cg():
    head = make_head("mlp", hidden=40)
    train = make_split(head, 60, hidden=40)
    budget = 2 * iterative_plan(differentiable_head(head, "head")).memory
    scorer = Influence().prepare(train, budget)
    assert isinstance(scorer, ConjugateGradientScorer)
    assert isinstance(Influence("hessian", damping=300.0).prepare(train, budget), ConjugateGradientScorer)


# -- LiSSA ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "curvature"), half_long(["linear", "mlp"], ["ggn", "hessian"]))
def test_lissa_over_the_whole_split_tends_to_the_direct_solution(kind, curvature):
    """Its λ·scale is the absolute damping."""
    train, test = splits(kind)
    recursion = {"lissa_scale": 5.0, "lissa_batch": 12}
    matrix = (
        oracles.mean_loss_ggn(train.head, train.features)
        if curvature == "ggn"
        else oracles.mean_loss_hessian(train.head, train.features, train.labels)
    )
    expected = (
        gradients(test)
        @ torch.linalg.inv(matrix + 0.2 * 5.0 * torch.eye(len(matrix), dtype=matrix.dtype))
        @ gradients(train).T
    )
    errors = []
    for depth in (1, 10, 150):
        method = Influence(curvature, "lissa", 0.2, lissa_depth=depth, **recursion)
        scorer = method.prepare(train, BUDGET)
        errors.append(float((score_matrix(scorer, test) - expected).norm() / expected.norm()))
        assert scorer.describe()["steps"] == depth
        assert scorer.describe()["damping_absolute"] == pytest.approx(1.0)
    assert errors[0] > 5 * errors[1] > 1e6 * errors[2]
    assert errors[2] < 1e-8
    assert scorer.describe()["residual"] < 1e-8


def test_lissa_equals_the_naive_recursion_over_its_batches():
    train, test = splits("mlp")
    method = METHODS["lissa"]
    scorer = method.prepare(train, BUDGET)
    batches = list(method.recursion().batches(12, 0))
    assert [len(rows) for rows in batches] == [4]
    method = Influence(solver="lissa", damping=0.05, lissa_scale=5.0, lissa_batch=5, lissa_depth=1.7)
    batches = list(method.recursion().batches(12, 0))
    assert [len(rows) for rows in batches] == [5, 5, 2, 5, 5]
    assert torch.equal(torch.cat(batches[:3]).sort().values, torch.arange(12))
    matrices = [oracles.mean_loss_ggn(train.head, train.features[rows]) for rows in batches]
    solutions = torch.stack([oracles.lissa(matrices, g, 0.05, 5.0) for g in gradients(test)])
    scorer = method.prepare(train, BUDGET)
    assert_close(score_matrix(scorer, test), solutions @ gradients(train).T)
    own = torch.stack([oracles.lissa(matrices, g, 0.05, 5.0) @ g for g in gradients(train)])
    assert_close(scorer.self_influence(), own)


@pytest.mark.long
def test_lissa_in_expectation():
    """Repeats average the mini-batches' noise away, up to what one pass's bias leaves."""
    train, test = splits("linear", 24)
    settings = {"solver": "lissa", "damping": 0.3, "lissa_scale": 5.0, "lissa_depth": 10}
    exact = prepared_scores(Influence(lissa_batch=24, **{**settings, "lissa_depth": 60}), train, test)
    errors = [
        float((prepared_scores(Influence(lissa_batch=4, lissa_repeats=n, **settings), train, test) - exact).norm())
        for n in (1, 40)
    ]
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < 0.05 * float(exact.norm())


def test_lissa_is_seeded():
    train, test = splits("linear")
    first, again, other = (
        prepared_scores(Influence(solver="lissa", damping=0.1, lissa_scale=5.0, lissa_seed=s), train, test)
        for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_diverging_recursion_is_refused_with_its_growth():
    train, _ = splits("mlp")
    method = Influence(solver="lissa", damping=0.1, lissa_scale=1e-3, lissa_depth=20)
    with pytest.raises(UserError, match=r"after \d+ steps a solution is [\d.e+]+ times as long.*raise lissa_scale"):
        method.prepare(train, BUDGET)


@pytest.mark.parametrize(
    "wrong",
    [{"damping": 1.0}, {"lissa_depth": 0.0}, {"lissa_scale": -1.0}, {"lissa_batch": 0}, {"lissa_repeats": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_constants_that_cannot_run_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=f"with this {next(iter(wrong))}"):
        Influence(**{"solver": "lissa", "damping": 0.05, **wrong})


def test_published_constants_make_gradient_similarity():
    """λ·scale = 400 is far above every eigenvalue of a mean loss: what is left of the curvature is one part in 400."""
    train, test = splits("linear", 40)
    published = Influence(solver="lissa", damping=0.04, lissa_depth=100, lissa_scale=1e4, lissa_batch=8)
    scores = prepared_scores(published, train, test)
    product = prepared_scores(GradientSimilarity(), train, test)
    assert_close(400 * scores, product, 1e-2)
    assert Recursion(0.04, 0.3, 1e4, 8, 1, 0).n_steps(2768) == round(0.3 * math.ceil(2768 / 8))


# -- (EK-)FAC and identity -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fisher", ["expectation", "empirical"])
@pytest.mark.parametrize("curvature", ["kfac", "ekfac"])
@pytest.mark.parametrize("case", ["linear", "mlp_no_bias", "choices", "choices_mlp"])
def test_kronecker_influence_equals_the_explicit_inverse(case, curvature, fisher):
    if case.startswith("choices"):
        head = choice_head("linear" if case == "choices" else "mlp_no_bias")
        train, test = make_choices(head, 12), make_choices(head, 4, seed=2)
    else:
        train, test = splits(case)
    labels = train.labels if fisher == "empirical" else None
    blocks, eigenvalues = oracles.fisher_blocks(train.head, train.features, labels, curvature == "ekfac")
    if case == "choices":  # one output has no covariance to speak of; the factor on it is the sum over the sequences
        assert len(blocks) == 1
    inverses = [
        torch.linalg.inv(block + 0.1 * values.mean() * torch.eye(len(block), dtype=block.dtype))
        for block, values in zip(blocks, eigenvalues, strict=True)
    ]
    inverse = torch.block_diag(*inverses)
    scorer = Influence(curvature, fisher=fisher).prepare(train, BUDGET)
    assert_close(score_matrix(scorer, test), gradients(test) @ inverse @ gradients(train).T)
    assert_close(scorer.self_influence(), (gradients(train) @ inverse @ gradients(train).T).diagonal())
    assert scorer.describe()["damping_absolute"] == pytest.approx([0.1 * float(v.mean()) for v in eigenvalues])
    assert_close(
        score_matrix(Influence(curvature, fisher=fisher).prepare(train, 300_000), test), score_matrix(scorer, test)
    )


def test_a_bias_is_one_more_input():
    """A head with a bias equals one without whose features end in 1."""
    plain, bias = make_head("linear", hidden=6), make_head("linear_bias", hidden=5)
    with torch.no_grad():
        plain.weight.copy_(torch.cat([bias.weight, bias.bias[:, None]], 1))
    left = [make_split(bias, n, seed=n) for n in (12, 4)]
    right = [HeadInputs(torch.cat([s.features, torch.ones(len(s), 1)], 1), s.labels, plain) for s in left]
    for curvature in ("kfac", "ekfac"):
        assert_close(prepared_scores(Influence(curvature), *left), prepared_scores(Influence(curvature), *right))


def test_kfac_is_ekfac_where_the_fisher_matrix_has_rank_one():
    """One example of two classes: one row δ ⊗ a, whose square is the product of the factors' eigenvalues."""
    head = make_head("linear", classes=2)
    train, test = make_split(head, 1, classes=2), make_split(head, 4, seed=2, classes=2)
    assert_close(prepared_scores(Influence("kfac"), train, test), prepared_scores(Influence("ekfac"), train, test))
    train = make_split(head, 5, classes=2)
    assert not torch.allclose(
        prepared_scores(Influence("kfac"), train, test), prepared_scores(Influence("ekfac"), train, test), rtol=1e-3
    )


def test_a_vanishing_fisher_block_is_refused():
    train, _ = splits("linear")
    with pytest.raises(UserError, match="Fisher block of the head's layer 0 has mean eigenvalue 0"):
        Influence("ekfac").prepare(HeadInputs(torch.zeros_like(train.features), train.labels, train.head), BUDGET)


def test_factors_beyond_the_budget_are_refused():
    with pytest.raises(UserError, match="curvature=kfac does not fit the memory budget"):
        Influence("kfac").prepare(splits("linear")[0], 100)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_identity_is_gradient_similarity_over_the_damping(kind):
    train, test = splits(kind)
    product = prepared_scores(GradientSimilarity(), train, test)
    scorer = Influence("identity", damping=0.25).prepare(train, BUDGET)
    assert_close(score_matrix(scorer, test), 4 * product)
    assert_close(scorer.self_influence(), 4 * GradientSimilarity().prepare(train, BUDGET).self_influence())


@pytest.mark.parametrize("curvature", ["kfac", "ekfac", "identity"])
@pytest.mark.parametrize("solver", ["dual", "cg", "lissa"])
def test_solvers_of_curvatures_in_closed_form_are_refused(curvature, solver):
    with pytest.raises(UserError, match=f"solver={solver} cannot serve curvature={curvature}"):
        Influence(curvature, solver)


@pytest.mark.parametrize("name", METHODS)
def test_satisfies_the_protocols_in_any_blocks(name):
    method = METHODS[name]
    train, test = splits("mlp")
    scorer = method.prepare(train, BUDGET)
    assert isinstance(method, InstanceMethod)
    assert isinstance(scorer, InstanceScorer)
    assert str(scorer.describe()["sign"]).startswith("positive: towards the target")
    whole, _ = stream_scores(scorer, test, torch.arange(4), 5, BUDGET)
    parts, _ = stream_scores(scorer, test, torch.arange(4), 5, 1)
    torch.testing.assert_close(parts.top_score, whole.top_score, rtol=1e-4, atol=1e-6)
    own = scorer.self_influence()
    scorer.block_budget = 1
    torch.testing.assert_close(scorer.self_influence(), own, rtol=1e-4, atol=0)
    torch.testing.assert_close(own, score_matrix(scorer, train).diagonal(), rtol=1e-4, atol=1e-9)
