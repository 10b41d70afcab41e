"""Joint certificates against refits by autograd, test by test, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests import oracles_truth as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.conformal import calibrated
from twinlens.attribution.evaluation.ground_truth.certificate import Certificate
from twinlens.attribution.evaluation.ground_truth.certified_changes import (
    Certified,
    Removed,
    change_with_neurons_off,
    changes_of_parts,
)
from twinlens.attribution.evaluation.ground_truth.convex_head import ConvexHead
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.example_models import BUDGET
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.targets import Targets

N, HIDDEN, CLASSES, TESTS = 20, 3, 3, 6


@pytest.mark.parametrize(("bias", "against"), [(False, True), (True, False)])
def test_changes_equal_refits_by_autograd(bias: bool, against: bool) -> None:
    torch.manual_seed(1)
    head = nn.Linear(HIDDEN, CLASSES, bias=bias)
    train = HeadInputs(torch.randn(N, HIDDEN), torch.randint(CLASSES, (N,)), head)
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    other = (target + 1) % CLASSES if against else None
    test = HeadInputs(torch.randn(TESTS, HIDDEN), target, head, against=other)
    ablated = torch.randn(TESTS, HIDDEN)
    rows = torch.stack([torch.randperm(N)[:4] for _ in range(TESTS)])
    taken = Removed(rows, torch.randn(TESTS), torch.randn(TESTS))
    evaluation = Certificate(removed=4, ablated=1, level=0.5, damping=0.3)
    found = {one.part: one for one in evaluation.refitted((train, test), ablated, taken, memory_budget=1)}
    again = {one.part: one for one in evaluation.refitted((train, test), ablated, taken, BUDGET)}
    problem = ConvexHead.of(head, train.features, train.labels, 0.3, "trained")

    def phi(weights: torch.Tensor, features: torch.Tensor, place: int) -> float:
        features = features.double()
        logits = weights @ (torch.cat([features, torch.ones(1).double()]) if bias else features)
        log_prob = logits.log_softmax(-1)
        return float(log_prob[target[place]] - (0 if other is None else log_prob[other[place]]))

    inputs = train.features.double()
    whole = oracles.fitted_head(inputs, train.labels, problem.penalty, problem.centre, bias, N)
    for place in range(TESTS):
        left = [row for row in range(N) if row not in rows[place].tolist()]
        without = oracles.fitted_head(inputs[left], train.labels[left], problem.penalty, problem.centre, bias, N)
        before = phi(whole, test.features[place], place)
        changes = {
            "instances": phi(without, test.features[place], place) - before,
            "neurons": phi(whole, ablated[place], place) - before,
            "joint": phi(without, ablated[place], place) - before,
        }
        changes["sum"] = changes["instances"] + changes["neurons"]
        for part, change in changes.items():
            assert float(found[part].realised[place]) == pytest.approx(change, abs=1e-6)
            assert float(again[part].realised[place]) == pytest.approx(change, abs=1e-6)
            if not against and part != "sum":  # a probability stays below 1
                assert float(found[part].intervals.high[place]) <= -before + 1e-6


def test_results_are_those_of_the_changes() -> None:
    draws = torch.Generator().manual_seed(0)
    n = 12
    outcomes = torch.randn(4, n, generator=draws).double()
    taken = Removed(torch.zeros(n, 2, dtype=torch.int64), outcomes[1] - outcomes[0], outcomes[2] - outcomes[0])
    targets = Targets(torch.zeros(n, dtype=torch.int64), against=torch.ones(n, dtype=torch.int64))
    evaluation = Certificate(removed=2, ablated=3, retrained=n, damping=0.2)
    others = Removed(*(torch.cat([part, part]) for part in (taken.rows, taken.scores, taken.off)))
    twice = torch.cat([outcomes, outcomes], 1)
    both = Targets(targets.target.repeat(2), against=torch.ones(2 * n, dtype=torch.int64))
    lines = [
        Certified(part, "refit", torch.arange(2 * n), calibrated(known, torch.arange(2 * n) % 2, 0.9), known)
        for part, known, _ in changes_of_parts(twice[0], twice[1:], others, both)
    ]
    certified = evaluation.of_retrained(outcomes, others, torch.arange(n), targets, lines)
    rows = evaluation.evaluate(certified, ("influence", "ig"))
    found = {(row.group, row.metric): row for row in rows}
    assert {row.variant for row in rows} == {"ablated=3;damping=0.2"}
    assert {(row.method, row.k) for row in rows} == {("influence+ig", 2)}
    assert {row.reference_group for row in rows} == {"retrained"}
    for part, realised in (("instances", outcomes[1] - outcomes[0]), ("joint", outcomes[3] - outcomes[0])):
        assert found[part, "certificate_change"].value == pytest.approx(float(realised.mean()))
        [one] = [one for one in certified if one.part == part]
        held = one.intervals.hold(realised)
        assert found[part, "certificate_coverage"].value == pytest.approx(100 * float(held.double().mean()))
        widths = (one.intervals.high - one.intervals.low).sort().values
        assert float(widths[n // 2 - 1]) <= found[part, "certificate_width"].value <= float(widths[n // 2])
        expected = oracles.pearson(one.intervals.predicted.tolist(), realised.tolist())
        assert found[part, "certificate_pearson"].value == pytest.approx(expected)
    assert found["instances", "certificate_pearson"].value > 0.99  # these scores are the changes themselves
    assert found["joint", "certificate_pearson"].value < 0.9


def test_shares_of_a_probability_are_taken_from_it() -> None:
    prob, scores = torch.tensor([0.8, 0.5, 0.1]), torch.tensor([0.2, -0.1, 0.4])
    expected = [0.6, 0.6, 0.1 * 0.001]  # more than there is leaves a thousandth
    found = (change_with_neurons_off(scores, prob).exp() * prob).tolist()
    assert found == pytest.approx(expected, rel=1e-5)
    assert change_with_neurons_off(scores, None).tolist() == pytest.approx([-0.2, 0.1, -0.4])


def method(kind: str, top_k: int = 100, is_control: bool = False) -> Any:
    return SimpleNamespace(kind=kind, top_k=top_k, is_control=is_control)


def test_the_first_methods_that_are_no_controls_are_taken() -> None:
    methods = {
        "random_instances": method("instance", is_control=True), "gradsim": method("instance"), "ig": method("neuron"),
        "influence": method("instance"),
    }  # fmt: skip
    assert Certificate().chosen(methods) == ("gradsim", "ig")
    assert Certificate(instances="influence").chosen(methods) == ("influence", "ig")
    assert Certificate(instances="random_instances").chosen(methods) == ("random_instances", "ig")
    with pytest.raises(UserError, match="neurons=gradsim is no neuron method of the run, which has ig"):
        Certificate(neurons="gradsim").chosen(methods)
    methods["ig"].top_k = 9
    with pytest.raises(UserError, match=r"the first 10 of a list away, but method.ig.top_k=9 keeps fewer"):
        Certificate().require_lists(methods)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"removed": 0}, "takes nothing away on one side"),
        ({"ablated": 0}, "takes nothing away on one side"),
        ({"level": 1.0}, "a share between 0 and 1"),
        ({"damping": 0.0}, "without a single best solution"),
        ({"retrained": 9}, "leaves 8 others to calibrate"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Certificate(**settings)


def test_what_a_run_lacks_is_named() -> None:
    assert "instance method" in Certificate().missing(Available(neuron=("ig",)))
    assert "neuron method" in Certificate().missing(Available(instance=("gradsim",)))
    both = Available(instance=("gradsim",), neuron=("ig",))
    assert Certificate().missing(both) == ""
    assert "fit=true" in Certificate(retrained=20).missing(both)
    assert "18 explained examples" in Certificate().lacking(17)
    assert Certificate().lacking(18) == ""
