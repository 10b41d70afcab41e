"""Areas under the curve of planted rows against pairs counted one by one."""

from __future__ import annotations

import pytest
import torch

from tests import oracles_truth as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.planted import Mislabelled, Shortcut, area_under_roc
from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
from twinlens.attribution.evaluation.needs import Available

TESTS, N_TRAIN = 4, 24
GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(2, TESTS, N_TRAIN, generator=GENERATOR).round(decimals=1)
OWN = torch.rand(N_TRAIN, generator=GENERATOR).double()
LABEL = torch.arange(N_TRAIN) % 3
PLANTED = torch.zeros(N_TRAIN, dtype=torch.bool)
PLANTED[[0, 3, 7]] = True  # of the labels 0, 0 and 1; none of label 2
ASKED = torch.tensor([True, False, True, True])
TARGET = torch.tensor([0, 0, 1, 2])


def inputs(**methods: HeldScores) -> TruthInputs:
    columns = {"shortcut": (PLANTED, ASKED), "wrong_label": (PLANTED, ASKED)}
    return TruthInputs(
        N_TRAIN, methods, torch.arange(TESTS), lambda rows, seed: torch.zeros(TESTS), LABEL,
        columns=columns, target=TARGET,
    )  # fmt: skip


def test_areas_equal_counted_pairs() -> None:
    found = area_under_roc(SCORES, PLANTED)
    expected = [[oracles.area_under_roc(row.tolist(), PLANTED.tolist()) for row in seed] for seed in SCORES]
    assert found.tolist() == [pytest.approx(row) for row in expected]


def test_wrong_labels_by_both_scores() -> None:
    methods = {"gradsim": HeldScores(SCORES[:1], own=OWN), "random_instances": HeldScores(SCORES, is_control=True)}
    for evaluation in (Mislabelled(), Mislabelled(rows=[0, 3, 7])):
        found = {(row.method, row.group): row for row in evaluation.evaluate(inputs(**methods))}
        assert set(found) == {("gradsim", "self_influence"), ("gradsim", "mean"), ("random_instances", "mean")}
        own = found["gradsim", "self_influence"]
        assert own.value == pytest.approx(oracles.area_under_roc(OWN.tolist(), PLANTED.tolist()))
        means = (-SCORES[0].double().mean(0)).tolist()
        assert found["gradsim", "mean"].value == pytest.approx(oracles.area_under_roc(means, PLANTED.tolist()))
        assert own.low is not None
        assert own.high is not None
        assert own.low <= own.value <= own.high
        assert own.k == 3


def test_planted_artefacts_among_rows_of_their_label() -> None:
    methods = {"signed": HeldScores(SCORES), "similar": HeldScores(SCORES, has_sign=False)}
    found = {row.method: row for row in Shortcut().evaluate(inputs(**methods))}
    for name, has_sign in (("signed", True), ("similar", False)):
        each = []
        for test in (0, 2, 3):
            of_seeds = []
            for seed in (0, 1):
                total = 0.0
                for row in (0, 3, 7):
                    others = [r for r in range(N_TRAIN) if LABEL[r] == LABEL[row] and not PLANTED[r]]
                    sign = -1 if has_sign and LABEL[row] != TARGET[test] else 1
                    own = sign * float(SCORES[seed, test, row])
                    below = [sign * float(SCORES[seed, test, r]) for r in others]
                    total += sum((own > value) + 0.5 * (own == value) for value in below) / len(below)
                of_seeds.append(total / 3)
            each.append(sum(of_seeds) / 2)
        assert found[name].value == pytest.approx(sum(each) / 3)
        assert found[name].n == 3


def test_rows_that_do_not_exist_are_refused_and_what_is_lacking_is_said() -> None:
    held = inputs(gradsim=HeldScores(SCORES))
    with pytest.raises(UserError, match="names row 24"):
        Mislabelled(rows=[0, 24]).require_rows(N_TRAIN)
    assert Mislabelled(rows=[0, 23]).lacking(held) == Shortcut().lacking(held) == ""
    assert "0 of 24 are wrong" in Mislabelled(rows=[]).lacking(held)
    nobody = TruthInputs(
        N_TRAIN, held.methods, held.index, held.measure, LABEL,
        columns={"shortcut": (PLANTED, ASKED & False)}, target=TARGET,
    )  # fmt: skip
    assert "(0 and 3 here)" in Shortcut().lacking(nobody)
    assert "a column wrong_label" in Mislabelled().missing(Available(instance=("gradsim",)))
    assert Mislabelled(rows=[1]).missing(Available(instance=("gradsim",))) == ""
    assert "planted column shortcut" in Shortcut().missing(Available(instance=("gradsim",)))
