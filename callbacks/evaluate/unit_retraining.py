"""Retraining for units as a stage: fits from the run's initial weights, of which units' contributions are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.bridge.units import Units
from twinlens.attribution.errors import require_finite
from twinlens.attribution.evaluation.ground_truth.unit_retraining import UnitLists, UnitRetraining
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.attribute.score_files import read_best_instances
from twinlens.callbacks.attribute.unit_score_files import read_units
from twinlens.callbacks.attribute.unit_scores import unit_contributions
from twinlens.callbacks.evaluate.evaluation_inputs import score_folder
from twinlens.callbacks.evaluate.refits import Recipe, restricted, stored_fit
from twinlens.callbacks.fit.stage import fit_inputs, n_processes
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import missing_shards
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.models.footprint import footprint_of
from twinlens.models.unit_removal import UnitRemoval

CONTRIBUTION = "contribution"


def unit_retraining_results(
    session: Session, name: str, evaluation: UnitRetraining, methods: Mapping[str, Any], recipe: Recipe
) -> list[Result]:
    """Results of every method of the run that lists train rows for units."""
    found: list[Result] = []
    n_train = len(session.data.splits["train"])
    for key in (key for key, method in methods.items() if method.reads == "units"):
        units, _, first = read_units(score_folder(session, key, None) / session.split)
        chosen = evaluation.chosen(units)
        units = units.at(chosen)
        prediction = None
        if evaluation.beside is not None:
            length = methods[evaluation.beside].top_k
            own = read_best_instances(score_folder(session, evaluation.beside, None) / session.split, length)[0]
            prediction = own[units.index]
        lists = UnitLists(key, first[chosen], prediction, evaluation.beside or "")
        fits = UnitFits(session, name, recipe, units)
        fits.prepare(evaluation.fits_of(n_train, lists))
        found += evaluation.evaluate(n_train, lists, fits)
    return found


@dataclass
class UnitFits:
    """Contributions of some units in models fitted again, each asked for once.

    All start from the initial weights of the run's own model; the seed of a fit draws the order of its rows.

    Args:
        session: of the run.
        name: the evaluation's name in the configuration.
        recipe: of the run's own fit.
        units: that are measured in every fit.
    """

    session: Session
    name: str
    recipe: Recipe
    units: Units

    def __post_init__(self) -> None:
        self.make_model = partial(self.recipe.make_model, seed=self.session.seed)
        self.place, self.rows = places_of(self.units.index)
        self._known: dict[tuple[tuple[int, ...], int], Tensor] = {}

    def prepare(self, fits: Sequence[tuple[Tensor, int]]) -> None:
        """Make, or read, all of these that no other run is at, see `SharedFits.prepare`."""
        if n_processes(self.recipe.trainer) > 1:
            return
        for rows, seed in fits:
            cell = restricted(self.session, sorted(rows.tolist()), seed)
            if not self.session.store.is_held("retrain", self.inputs(cell)):
                self(rows, seed)

    def __call__(self, rows: Tensor, seed: int) -> Tensor:
        """Contributions in a model fitted on these train rows, [pairs], float64."""
        key = tuple(sorted(rows.tolist())), seed
        if key not in self._known:
            session, cell = self.session, restricted(self.session, key[0], seed)
            found = stored_fit(session, self.name, self.recipe, cell, self.make_model, self.inputs(cell), self._measure)
            number = torch.searchsorted(self.rows, self.units.index)
            self._known[key] = found[CONTRIBUTION][number, self.place].double()
        return self._known[key]

    def inputs(self, cell: Session) -> dict[str, Any]:
        """Everything that a cell's contributions depend on."""
        session, parts = self.session, torch.stack([part.long() for part in vars(self.units).values()])
        return {
            **fit_inputs(cell, self.recipe.model, self.recipe.trainer, self.recipe.callbacks),
            "initial_seed": session.seed,
            "units": hashlib.sha256(parts.numpy().tobytes()).hexdigest(),
            "explain": session.explain.neuron.identity,
            "explained": session.predictions[session.split].fingerprint,
            "measured_by": code_of(__name__),
        }

    def _measure(self, folder: Path) -> dict[str, Tensor]:
        """Column `contribution` of the units' examples, [examples, most units of one], NaN behind the last."""
        session = self.session
        title = f"units on {session.split}"
        shards = [[[row] for row in part.tolist()] for part in self.rows.split(session.eval_batch_size)]
        model: nn.Module = nn.Identity()
        measure: Any = dict
        if missing_shards(folder / "shards", len(shards)):  # else killed before its entry was finished
            model = session.trained_model(self.make_model, str(folder / "model"))
            measure = _Contributions(session, title, model, self.units, self.place)
        loader = session.loader(session.split)
        return run_pass(title, model, measure, shards, loader, folder / "shards", session.trainers).rows


class _Contributions:
    """A pass over the units' examples, one a batch."""

    def __init__(self, session: Session, title: str, model: Any, units: Units, place: Tensor) -> None:
        self.title = title
        self.model = model
        self.units = units
        self.width = int(place.max()) + 1
        self.targets = session.targets("neuron", session.split)
        self.budget = session.memory_budget // 2  # each is read twice
        self.need = prediction_need(footprint_of(model.backbone), session.sequences)
        self.taken: UnitRemoval | None = None

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        self.taken = self.taken or UnitRemoval(self.model)  # by the first batch the model is on its device
        index, device = batch["index"].cpu(), batch["input_ids"].device
        pairs = torch.nonzero(self.units.index == index)[:, 0]
        repeated = {name: values.repeat_interleave(len(pairs), 0) for name, values in batch.items()}
        cut = WithinMemory(self.title, self._of_pairs, self.budget, self.need)
        found = cut({**repeated, "pair": pairs.to(device)})[CONTRIBUTION].cpu()
        require_finite(found, f"the contribution of {self.title}", index.expand(len(found)))
        padded = found.new_full((1, self.width), torch.nan)
        padded[0, : len(found)] = found
        return {"index": batch["index"], CONTRIBUTION: padded}

    def _of_pairs(self, batch: Batch, budget: int) -> dict[str, Tensor]:
        assert self.taken is not None
        device = batch["input_ids"].device
        own = self.units.at(batch["pair"].cpu()).to(device)
        targets = self.targets.at(batch["index"].cpu()).to(device)
        with torch.no_grad():
            return {CONTRIBUTION: unit_contributions(self.taken, own, targets, batch)}


def places_of(index: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows that may come several times, [pairs]: how often each came before, and the rows once, rising."""
    before = torch.stack([(index[:number] == row).sum() for number, row in enumerate(index)])
    return before, index.unique()
