"""Leave one out against refits by autograd, and what influence makes of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests import oracles_truth as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.convex_head import ConvexHead
from twinlens.attribution.evaluation.ground_truth.loo import LeaveOneOut
from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
from twinlens.attribution.example_models import BUDGET
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs

N, HIDDEN, CLASSES = 14, 4, 3


def problem(bias: bool) -> tuple[HeadInputs, HeadInputs]:
    """Rows with one far outlier, and tests with a difference explained."""
    torch.manual_seed(3)
    head = nn.Linear(HIDDEN, CLASSES, bias=bias)
    features = torch.randn(N, HIDDEN)
    features[2] *= 30
    train = HeadInputs(features, torch.randint(CLASSES, (N,)), head)
    test = HeadInputs(torch.randn(3, HIDDEN), torch.tensor([0, 1, 2]), head, against=torch.tensor([1, 2, 0]))
    return train, test


def inputs_of(train: HeadInputs, test: HeadInputs, scores: torch.Tensor) -> TruthInputs:
    held = {"mine": HeldScores(scores)}
    return TruthInputs(len(train), held, torch.arange(len(test)), lambda rows, seed: torch.zeros(3), head=(train, test))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("centre", ["trained", "zero"])
def test_changes_equal_refits_by_autograd(bias: bool, centre: str) -> None:
    train, test = problem(bias)
    rows = torch.tensor([0, 2, 5, 13])
    found = LeaveOneOut(damping=0.3, centre=centre).changes(train, test, rows, memory_budget=1)
    whole = LeaveOneOut(damping=0.3, centre=centre).changes(train, test, rows, BUDGET)
    assert torch.allclose(found, whole, rtol=0, atol=1e-8)  # whatever the blocks, which end within the tolerance
    problem_of = ConvexHead.of(train.head, train.features, train.labels, 0.3, centre)
    inputs = train.features.double()
    prob = train.head.double()(inputs).softmax(-1)
    squares = inputs.square().sum(1) + bias
    trace = sum(float((1 - p.square().sum()) * s) for p, s in zip(prob.detach(), squares, strict=True)) / N
    assert problem_of.penalty == pytest.approx(0.3 * trace / problem_of.centre.numel())

    def measured(features: torch.Tensor, labels: torch.Tensor) -> list[float]:
        weights = oracles.fitted_head(features, labels, problem_of.penalty, problem_of.centre, bias, N)
        tests = test.features.double()
        logits = (torch.cat([tests, torch.ones(3, 1).double()], 1) if bias else tests) @ weights.T
        log_prob = logits.log_softmax(-1)
        assert test.against is not None
        pairs = zip(log_prob, test.labels.tolist(), test.against.tolist(), strict=True)
        return [float(row[a] - row[b]) for row, a, b in pairs]

    full = measured(inputs, train.labels)
    for column, row in enumerate(rows.tolist()):
        left = [other for other in range(N) if other != row]
        without = measured(inputs[left], train.labels[left])
        assert found[:, column].tolist() == pytest.approx([a - b for a, b in zip(full, without, strict=True)], abs=1e-6)


def test_correlations_are_those_of_each_test() -> None:
    train, test = problem(bias=True)
    scores = torch.randn(2, 3, N, generator=torch.Generator().manual_seed(1))
    evaluation = LeaveOneOut()
    truth = evaluation.changes(train, test, torch.arange(N), BUDGET)
    found = {row.metric: row for row in evaluation.evaluate(inputs_of(train, test, scores))}
    for metric, oracle in (("loo_pearson", oracles.pearson), ("loo_spearman", oracles.spearman)):
        each = [
            sum(oracle(scores[seed, test].tolist(), truth[test].tolist()) for seed in (0, 1)) / 2 for test in range(3)
        ]
        assert found[metric].samples.tolist() == pytest.approx(each)
        assert found[metric].value == pytest.approx(sum(each) / 3)
        assert (found[metric].n, found[metric].k) == (3, N)


def test_influence_is_the_first_order_of_it() -> None:
    """With the refit's own penalty and many rows, influence over n is what a row is worth, nearly."""
    torch.manual_seed(0)
    head = nn.Linear(3, 2, bias=False)
    train = HeadInputs(torch.randn(400, 3), torch.randint(2, (400,)), head)
    test = HeadInputs(torch.randn(5, 3), torch.randint(2, (5,)), head)
    evaluation = LeaveOneOut(damping=1.0)
    solved = nn.Linear(3, 2, bias=False)
    weights = ConvexHead.of(head, train.features, train.labels, 1.0, "trained").solve()
    solved.weight.data = weights.float()
    train, test = (HeadInputs(side.features, side.labels, solved) for side in (train, test))
    scorer = Influence(damping=1.0).prepare(train, BUDGET)
    scores = scorer.scores(scorer.query(test, torch.arange(5)), 0, 400)
    truth = evaluation.changes(train, test, torch.arange(400), BUDGET)
    rows = evaluation.evaluate(inputs_of(train, test, scores[None]))
    assert all(row.value > 0.99 for row in rows)
    slope = float((scores / 400 * truth).sum() / truth.square().sum())
    assert math.isclose(slope, 1, abs_tol=0.1)


def test_some_rows_are_the_same_as_those_of_all() -> None:
    train, test = problem(bias=False)
    scores = torch.randn(1, 3, N)
    (some, _) = LeaveOneOut(rows=5).evaluate(inputs_of(train, test, scores))
    assert some.k == 5


def test_what_cannot_be_refitted_exactly_is_refused() -> None:
    train, test = problem(bias=False)
    deep = nn.Sequential(nn.Linear(HIDDEN, CLASSES), nn.Tanh())
    deeper = HeadInputs(train.features, train.labels, deep)
    with pytest.raises(UserError, match="only a linear one allows"):
        LeaveOneOut().evaluate(inputs_of(deeper, test, torch.zeros(1, 3, N)))
    several = HeadInputs(train.features[:, None].expand(-1, 2, -1), train.labels, train.head)
    with pytest.raises(UserError, match="2 choices"):
        LeaveOneOut().evaluate(inputs_of(several, test, torch.zeros(1, 3, N)))
    for settings, told in (({"damping": 0}, "damping=0"), ({"rows": 2}, "rows=2")):
        with pytest.raises(UserError, match=told):
            LeaveOneOut(**settings)
