"""Planned memory of instance methods, for classification and for multiple choice."""

from __future__ import annotations

import pytest
from torch import nn

from twinlens.attribution.instance.bm25 import BM25
from twinlens.attribution.instance.costs import PassSizes
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.protocol import InstanceMethod
from twinlens.attribution.instance.similarity import HiddenSimilarity
from twinlens.attribution.instance.tracin import TracIn

BUDGET = 2**28
KNOWN = [
    GradientSimilarity(),
    TracIn(),
    HiddenSimilarity(),
    Influence(solver="direct"),
    Influence(solver="dual"),
    Influence("ekfac"),
    Influence("identity"),
]


@pytest.mark.parametrize("method", KNOWN, ids=lambda method: f"{type(method).__name__}-{vars(method).get('solver')}")
@pytest.mark.parametrize("sequences", [1, 5])
def test_known_methods_fit_the_budget_and_have_a_time(method: InstanceMethod, sequences: int) -> None:
    head = nn.Linear(64, 1 if sequences > 1 else 4, bias=False)
    few = method.cost(PassSizes(head, 200, 50, 50, BUDGET, sequences))
    more = method.cost(PassSizes(head, 400, 50, 50, BUDGET, sequences))
    assert few.operations is not None
    assert 0 < few.memory <= more.memory <= 1.1 * BUDGET
    assert few.operations < (more.operations or 0)


def test_choices_and_checkpoints_cost_more() -> None:
    head = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    one, five = (GradientSimilarity().cost(PassSizes(head, 200, 50, 50, BUDGET, n)) for n in (2, 5))
    assert five.memory > one.memory
    once, thrice = (TracIn().cost(PassSizes(head, 200, 50, 50, BUDGET, 2, n)) for n in (1, 3))
    assert (thrice.operations or 0) == pytest.approx(3 * (once.operations or 0))


def test_iterations_and_unknown_methods_take_what_they_are_given() -> None:
    head = nn.Linear(64, 4, bias=False)
    for method in (Influence(solver="cg"), Influence(solver="lissa", damping=0.04), BM25()):
        cost = method.cost(PassSizes(head, 200, 50, 50, BUDGET))
        assert (cost.memory, cost.operations) == (BUDGET, None)
