"""Fits that runs share: an evaluation says beforehand what it asks for, and each run takes what no other is at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from twinlens.attribution.evaluation.diversity_series import DiversitySeries
from twinlens.attribution.evaluation.ground_truth.cluster_removal import AskedTogether, ClusterRemoval
from twinlens.attribution.evaluation.ground_truth.lds import LinearDatamodelling
from twinlens.attribution.evaluation.ground_truth.removal import Removal
from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
from twinlens.attribution.evaluation.refits import Reference
from twinlens.attribution.evaluation.retraining import Retraining
from twinlens.callbacks.evaluate import shared_fits
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.shared_fits import SharedFits
from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.callbacks.store.lock import Lock
from twinlens.callbacks.store.store import Store

TESTS, N_TRAIN = 4, 24
LABEL = torch.arange(N_TRAIN) % 3
NONE = torch.zeros(0, dtype=torch.long)
SCORES = torch.randn(1, TESTS, N_TRAIN, generator=torch.Generator().manual_seed(0))
Fit = tuple[tuple[int, ...], int]


def keys(fits: Sequence[tuple[Any, int]]) -> list[Fit]:
    return [(tuple(sorted(torch.as_tensor(rows).tolist())), seed) for rows, seed in fits]


@pytest.mark.parametrize(
    "evaluation",
    [
        LinearDatamodelling(subsets=5, seeds=(0, 1)),
        Removal(removed=[2, 3], tests=2, seeds=[0, 1]),
        Removal(removed=[2], tests=3, together=False, methods=["gradsim"]),
        ClusterRemoval(seeds=[0, 1]),
    ],
)
@pytest.mark.parametrize("label", [LABEL, None])
def test_ground_truth_asks_for_what_it_said(evaluation: Any, label: Tensor | None) -> None:
    asked: list[tuple[Any, int]] = []

    def measure(rows: Sequence[int], seed: int) -> Tensor:
        asked.append((list(rows), seed))
        return torch.randn(TESTS, generator=torch.Generator().manual_seed(sum(rows) + seed)).double()

    held = {"gradsim": HeldScores(SCORES), "influence": HeldScores(-SCORES), "random": HeldScores(SCORES, True)}
    groups = [
        AskedTogether("a", torch.tensor([0, 2]), torch.tensor([4, 7])),
        AskedTogether("b", torch.tensor([1]), NONE),
    ]
    together = {"gradsim": groups, "random": groups}
    inputs = TruthInputs(N_TRAIN, held, torch.arange(TESTS), measure, train_label=label, groups=together)
    said = keys(evaluation.fits_of(inputs))
    assert not asked
    evaluation.evaluate(inputs)
    assert sorted(said) == sorted(keys(asked))
    assert len(said) > 3


def test_retraining_asks_for_what_it_said() -> None:
    asked: list[tuple[Tensor, int]] = []

    def fit(rows: Tensor, seed: int) -> Tensor:
        asked.append((rows, seed))
        return torch.zeros(TESTS, dtype=torch.long)

    zeros = torch.zeros(TESTS, dtype=torch.long)
    reference = Reference(zeros, zeros, train_label=LABEL, label_names=("a", "b", "c"))
    evaluation = Retraining(fractions=[25], groups=["most", "least", "random", "same_labels"])
    rankings = {"gradsim": torch.arange(N_TRAIN)}
    said = keys(evaluation.fits(rankings, LABEL))
    evaluation.evaluate(rankings, fit, reference)
    assert sorted(said) == sorted(keys(asked))
    assert DiversitySeries().fits(rankings, LABEL) == []  # a plan has no states of the train split


FITS = [([0, 1], 0), ([1, 2], 0), ([2, 3], 0), ([1, 0], 0)]


class Elsewhere:
    """A stand-in for the store: what another run holds, and what was computed here, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *held: Sequence[int]) -> None:
        self.done: list[list[int]] = []
        monkeypatch.setattr(shared_fits, "is_computed_elsewhere", lambda session, recipe, rows, *more: rows in held)
        monkeypatch.setattr(shared_fits, "refitted", self.refitted)

    def refitted(
        self, session: Any, name: str, recipe: Any, rows: Sequence[int], seed: int, more: Any
    ) -> dict[str, Tensor]:
        self.done.append(list(rows))
        return {"prediction": torch.tensor([sum(rows)])}


def recipe(devices: int) -> Recipe:
    return Recipe(lambda **_: None, {}, {"devices": devices}, {}, list)  # type: ignore[arg-type, return-value]


def test_what_another_run_is_at_comes_last_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Elsewhere(monkeypatch, [1, 2])
    nothing: Any = None
    fits = SharedFits(nothing, "lds", recipe(1))
    fits.prepare(FITS)
    assert elsewhere.done == [[0, 1], [2, 3]]
    assert [int(fits(rows, seed)["prediction"]) for rows, seed in FITS] == [1, 3, 5, 1]
    assert elsewhere.done == [[0, 1], [2, 3], [1, 2]]


def test_processes_of_one_run_ask_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Elsewhere(monkeypatch, [1, 2])
    nothing: Any = None
    fits = SharedFits(nothing, "lds", recipe(2))
    fits.prepare(FITS)
    assert elsewhere.done == []
    assert [int(fits(rows, seed)["prediction"]) for rows, seed in FITS[:3]] == [1, 3, 5]


def test_an_entry_is_held_while_somebody_is_at_it(tmp_path: Path) -> None:
    store, inputs = Store(tmp_path), {"rows": 3}
    assert not store.is_held("retrain", inputs)
    lock = Lock(tmp_path / "retrain" / f"{fingerprint_of(inputs)}.lock", until=lambda: False)
    with lock:
        assert store.is_held("retrain", inputs)
        assert not store.is_held("retrain", {"rows": 4})
    assert not store.is_held("retrain", inputs)
    store.get("retrain", inputs, lambda folder: None)
    assert not store.is_held("retrain", inputs)
