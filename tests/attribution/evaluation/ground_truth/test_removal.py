"""Removal against a naive loop: which rows are taken away, for whom, and the control beside it."""

from __future__ import annotations

import pytest
import torch

from tests import oracles_truth as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.removal import Removal
from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.subsets import same_labels
from twinlens.attribution.evaluation.train_ranking import random_ranking

TESTS, N_TRAIN = 7, 30
GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(1, TESTS, N_TRAIN, generator=GENERATOR)
WORTH = SCORES[0].double() + torch.randn(TESTS, N_TRAIN, generator=GENERATOR)
LABEL = torch.arange(N_TRAIN) % 3


def measure(rows: list[int], seed: int) -> torch.Tensor:
    return (1 + seed) * WORTH[:, list(rows)].sum(1)


def inputs(**methods: HeldScores) -> TruthInputs:
    held = methods or {"gradsim": HeldScores(SCORES), "random_instances": HeldScores(SCORES, is_control=True)}
    return TruthInputs(N_TRAIN, held, torch.arange(TESTS), measure, train_label=LABEL)


def test_falls_equal_a_naive_loop() -> None:
    found = Removal(removed=[4], tests=5, seeds=[0, 1]).evaluate(inputs())
    assert {row.method for row in found} == {"gradsim", "random_instances"}  # the latter as control alone
    by_place = {(row.metric, row.method, row.group): row for row in found}
    tests = sorted(random_ranking(TESTS, 0)[:5].tolist())
    falls, predicted = [], []
    for test in tests:
        first = sorted(range(N_TRAIN), key=lambda row: -float(SCORES[0, test, row]))[:4]
        predicted.append(float(SCORES[0, test, first].sum()))
        falls.append(sum((1 + seed) * float(WORTH[test, first].sum()) for seed in (0, 1)) / 2)
    own = by_place["removal", "gradsim", "each"]
    assert own.value == pytest.approx(sum(falls) / 5)
    assert own.samples.shape == (2, 5)
    assert own.low < own.value < own.high
    assert by_place["removal_predicted", "gradsim", "each"].value == pytest.approx(sum(predicted) / 5)
    assert by_place["removal_spearman", "gradsim", "each"].value == pytest.approx(oracles.spearman(predicted, falls))
    ranked = sorted(range(N_TRAIN), key=lambda row: -float(SCORES[0, :, row].mean()))[:4]
    together = by_place["removal", "gradsim", "together"]
    assert together.value == pytest.approx(1.5 * float(WORTH[:, ranked].sum(1).mean()))
    assert together.n == TESTS


def test_the_control_has_the_labels_of_what_it_stands_beside() -> None:
    asked: list[list[int]] = []

    def seen(rows: list[int], seed: int) -> torch.Tensor:
        asked.append(list(rows))
        return measure(rows, seed)

    one = inputs(gradsim=HeldScores(SCORES))
    one = TruthInputs(N_TRAIN, one.methods, one.index, seen, train_label=LABEL)
    found = Removal(removed=[5], tests=2, together=False).evaluate(one)
    whole, *others = asked
    assert whole == list(range(N_TRAIN))
    own, control = others[:2], others[2:]
    for number, (rows, drawn) in enumerate(zip(own, control, strict=True)):
        away, random = (sorted(set(range(N_TRAIN)) - set(left)) for left in (rows, drawn))
        assert sorted(LABEL[away].tolist()) == sorted(LABEL[random].tolist())
        assert random == sorted(same_labels(torch.tensor(away), LABEL, number).tolist())
    (row,) = [row for row in found if row.control]
    assert (row.reference_group, row.variant) == ("gradsim", "control=same_labels")


def test_what_takes_nothing_away_is_refused() -> None:
    for settings, told in (
        ({"removed": []}, "takes nothing away"),
        ({"removed": [0]}, "takes nothing away"),
        ({"tests": 0, "together": False}, "takes nothing away"),
        ({"seeds": []}, "fits nothing"),
    ):
        with pytest.raises(UserError, match=told):
            Removal(**settings)
    with pytest.raises(UserError, match="leaves nothing of 30"):
        Removal(removed=[30]).evaluate(inputs())
    with pytest.raises(UserError, match=r"raise method\.gradsim\.top_k"):
        Removal(removed=[30]).require_length("gradsim", 10)


def test_it_needs_a_recipe_and_a_method_that_draws_nothing() -> None:
    draws = Available(instance=("random_instances",), with_seeds=frozenset({"random_instances"}), fits=True)
    assert "without seeds" in Removal().missing(draws)
    assert "fit=true" in Removal().missing(Available(instance=("gradsim",)))
    assert Removal().missing(Available(instance=("gradsim",), fits=True)) == ""
    assert len(Removal(removed=[2, 3], tests=4).expected_fits(10, 1)) == 1 + 2 * 10
