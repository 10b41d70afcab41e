"""Falls of units' contributions against plain loops over a "model" that is a sum over its rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.oracles_units import falls
from twinlens.attribution.bridge.units import Units
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.unit_retraining import UnitLists, UnitRetraining
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.subsets import RANDOM, without
from twinlens.attribution.evaluation.train_ranking import random_ranking

N_TRAIN, SEEDS, PAIRS = 30, [3, 5, 8], 4
WORTH = torch.randn(PAIRS, N_TRAIN, generator=torch.Generator().manual_seed(1)).double()
OWN = WORTH.argsort(1, descending=True)
OTHER = OWN.roll(1, 0)


def measure(rows: Tensor, seed: int) -> Tensor:
    assert rows.tolist() == sorted(rows.tolist())
    return WORTH[:, rows].sum(1) * (1 + seed / 10)


def test_results_equal_plain_loops() -> None:
    asked: list[tuple[tuple[int, ...], int]] = []

    def counted(rows: Tensor, seed: int) -> Tensor:
        asked.append((tuple(rows.tolist()), seed))
        return measure(rows, seed)

    evaluation = UnitRetraining(percent=10, units=PAIRS, seeds=SEEDS, beside="influence")
    lists = UnitLists("bridge", OWN[:, :5], OTHER[:, :3], "influence")
    rows = evaluation.evaluate(N_TRAIN, lists, counted)
    found = {(row.metric, row.method, row.reference_group): row for row in rows}

    def contributions(kept: list[int], seed: int) -> list[float]:
        return measure(torch.tensor(kept), seed).tolist()

    own, other = (torch.tensor(falls(N_TRAIN, part[:, :3], contributions, SEEDS)) for part in (OWN, OTHER))
    drawn = torch.stack(
        [measure(torch.arange(N_TRAIN), seed) - measure(without(N_TRAIN, random_ranking(N_TRAIN, seed)[:3]), seed)
         for seed in SEEDS]
    )  # fmt: skip
    for name, reference, expected in (("bridge", "", own), ("influence", "", other), (RANDOM, "bridge", drawn)):
        row = found["unit_fall", name, reference]
        torch.testing.assert_close(row.samples, expected.double())
        assert row.value == pytest.approx(float(expected.mean()))
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.value <= row.high
    for name, reference, expected in (
        ("bridge", RANDOM, own - drawn), ("influence", RANDOM, other - drawn), ("bridge", "influence", own - other),
    ):  # fmt: skip
        assert found["unit_fall_difference", name, reference].value == pytest.approx(float(expected.mean()))
    spread = float(drawn.std())
    assert found["unit_fall_random_sd", RANDOM, ""].value == pytest.approx(spread)
    ratio = found["unit_fall_ratio", "bridge", RANDOM].value
    assert ratio == pytest.approx(float((own - drawn).mean()) / spread)
    assert ratio > 1.5  # rows chosen by what they are worth
    whole = torch.stack([measure(torch.arange(N_TRAIN), seed) for seed in SEEDS])
    assert found["unit_contribution", "bridge", ""].value == pytest.approx(float(whole.mean()))

    planned = evaluation.fits_of(N_TRAIN, lists)
    assert {(tuple(rows.tolist()), seed) for rows, seed in planned} == set(asked)
    assert sorted(evaluation.expected_fits(N_TRAIN, 7)) == sorted(len(kept) for kept, _ in planned_once(asked))


def planned_once(asked: list[tuple[tuple[int, ...], int]]) -> list[tuple[tuple[int, ...], int]]:
    return [*asked]


def test_rows_chosen_at_random_show_no_fall_beyond_random() -> None:
    drawn = torch.stack([random_ranking(N_TRAIN, 100 + pair) for pair in range(PAIRS)])
    evaluation = UnitRetraining(percent=10, units=PAIRS, seeds=list(range(8)), beside=None)
    rows = evaluation.evaluate(N_TRAIN, UnitLists("bridge", drawn), measure)
    found = {row.metric: row for row in rows if row.method == "bridge"}
    assert abs(found["unit_fall_ratio"].value) < 1.5


def test_pairs_are_drawn_with_no_unit_twice() -> None:
    units = Units.named([["ffn", 0, 3], ["ffn", 1, 2], ["head", 0, 3]], torch.arange(6))
    chosen = UnitRetraining(units=20).chosen(units)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert len(chosen) == len(set(units.numbers()[chosen].tolist())) == 3
    assert len(UnitRetraining(units=2).chosen(units)) == 2


def test_what_it_lacks_or_cannot_take_away_is_said() -> None:
    evaluation = UnitRetraining(percent=50)
    assert "fit=true" in evaluation.missing(Available(units=("bridge",)))
    assert "data_of_neurons" in evaluation.missing(Available(fits=True))
    assert not evaluation.missing(Available(fits=True, units=("bridge",)))
    with pytest.raises(UserError, match=r"the first 50 % of 30 train rows away, 15 rows, but method\.bridge\.top_k=10"):
        evaluation.require_unit_lists("bridge", 10, N_TRAIN)
    with pytest.raises(UserError, match="beside=influence_ekfac is no instance method"):
        evaluation.require_methods(["gradsim"])
    for options, said in (
        ({"percent": 100}, "everything"),
        ({"units": 0}, "at least one unit"),
        ({"seeds": [1]}, "two seeds"),
    ):
        with pytest.raises(UserError, match=said):
            UnitRetraining(**options)  # type: ignore[arg-type]
