"""Fits on part of the train split, each predicting the explained split, stored one by one under its own fingerprint."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from twinlens.attribution.errors import require_finite
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.attribute.explained_scores import explained_batch, explained_scores
from twinlens.callbacks.fit.stage import FINISHED, MakeModel, fit_inputs, fit_into
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.explain import COMPLETION
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import DataModule, Session
from twinlens.callbacks.passes.shards import missing_shards
from twinlens.callbacks.processes.ranks import is_first_process, meet
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.models.footprint import footprint_of

PREDICTIONS = "predictions.safetensors"
PHI = "phi"
"""Column of what is explained, where that is a completion."""


@dataclass(frozen=True)
class Recipe:
    """How the run fits its model.

    Attributes:
        make_model: builds the classifier; keywords `path` and `seed` replace checkpoint and seed.
        model, trainer, callbacks: settings, plain values.
        make_callbacks: builds the callbacks of the fit.
    """

    make_model: MakeModel
    model: Mapping[str, Any]
    trainer: Mapping[str, Any]
    callbacks: Mapping[str, Any]
    make_callbacks: Callable[[], list[Callback]]


class MoreColumns(Protocol):
    """Further columns of what refitted models say of the explained split.

    Attributes:
        identity: what they depend on beside model and split, plain values.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def of(self, model: Any) -> Callable[[Batch, int], dict[str, Tensor]]:
        """What computes the columns of a batch within a number of bytes, for a fitted model."""


def refitted(
    session: Session, name: str, recipe: Recipe, chosen: Sequence[int], seed: int, more: MoreColumns | None = None
) -> dict[str, Tensor]:
    """Outputs of a model fitted on some train rows for the explained split: `prediction`, its classes, [tests], and
    `log_prob`, in nats, float32 [tests, outputs]; of a vocabulary instead of the latter `phi`, what is explained of
    completions, [tests], where they are.

    Only these are kept, not the model. Equal sets of rows are one cell, in whatever order they are ranked.

    Args:
        session: of the run; stays as it is.
        name: the evaluation's name in the configuration.
        recipe: of the run's own fit.
        chosen: rows of the train split.
        seed: of new parameters, the order of the rows and dropout.
        more: further columns; None: there are none.
    """
    cell = restricted(session, sorted(chosen), seed)
    make_model = partial(recipe.make_model, seed=seed)
    predict = partial(_predict, session, make_model, more)
    return stored_fit(session, name, recipe, cell, make_model, cell_inputs(session, cell, recipe, more=more), predict)


def stored_fit(
    session: Session,
    name: str,
    recipe: Recipe,
    cell: Session,
    make_model: MakeModel,
    inputs: Mapping[str, Any],
    measure: Callable[[Path], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """What is measured of a model fitted on a cell's rows, from the store where it is there; the model is not kept.

    Args:
        session: of the run; stays as it is.
        name: the evaluation's name in the configuration.
        recipe: of the run's own fit.
        cell: the session restricted to the cell's rows.
        make_model: builds the model that is fitted.
        inputs: everything that what is measured depends on.
        measure: of the folder with the fitted model, columns with `index` among them; empty but in the first process.
    """

    def build(folder: Path) -> None:
        fit_into(folder, cell, make_model, recipe.make_callbacks, [Unheard()])
        wait_for(folder / FINISHED)
        rows = measure(folder)
        meet()  # the first process must not take away what others still read
        if is_first_process():
            kept = {key: column.contiguous() for key, column in rows.items() if key != "index"}
            save_file(kept, folder / PREDICTIONS)
            shutil.rmtree(folder / "model", ignore_errors=True)

    n_rows = len(cell.data.splits["train"])
    labels = session.labels(evaluation=name, split=session.split, rows=n_rows, draw=cell.seed)
    title = f"{name}: fit on {n_rows} train rows, seed {cell.seed}"
    entry = session.store.get("retrain", inputs, build, labels, title)
    return load_file(entry.path / PREDICTIONS)


def is_computed_elsewhere(
    session: Session, recipe: Recipe, chosen: Sequence[int], seed: int, more: MoreColumns | None = None
) -> bool:
    """Whether another run is at a fit that the store does not have yet; arguments as of `refitted`."""
    cell = restricted(session, sorted(chosen), seed)
    return session.store.is_held("retrain", cell_inputs(session, cell, recipe, more=more))


def cell_inputs(
    session: Session, cell: Session, recipe: Recipe, source: Any = None, more: MoreColumns | None = None
) -> dict[str, Any]:
    """Everything a cell's predictions depend on.

    Args:
        session: of the run.
        cell: the session restricted to the cell's rows.
        recipe: of the run's own fit.
        source: what the weights start from, where it is known already.
        more: further columns.
    """
    explained = {"explain": session.explain.instance.identity} if _of_completions(session) else {}
    return {
        **fit_inputs(cell, recipe.model, recipe.trainer, recipe.callbacks, source),
        **explained,
        "explained": session.data.fingerprint(session.split),
        "predicted_by": code_of(__name__),
        **({} if more is None else {"more": dict(more.identity)}),
    }


class Unheard(Logger):
    """A logger for callbacks that need one: the run's own would mix a cell's curves into those of the run's fit."""

    @property
    def name(self) -> None:
        """None: nothing is written under any name."""

    @property
    def version(self) -> None:
        """None, likewise."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write nothing."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write nothing."""


def restricted(session: Session, rows: Sequence[int], seed: int) -> Session:
    """The session with only some rows of the train split, tokenised as they are, and another seed."""
    data: Any = copy.copy(session.data)
    data.splits = {**data.splits, "train": data.splits["train"].select(rows)}
    data.seed = seed  # of the order of the rows
    restricted_data: DataModule = data
    return replace(session, data=restricted_data, seed=seed, model=None, weights="")


def _of_completions(session: Session) -> bool:
    """Whether what is explained are completions."""
    return session.explain.instance.target == COMPLETION


def wait_for(file: Path) -> None:
    """Wait until the first process has written a file; it needs no waiting itself."""
    while not is_first_process() and not file.is_file():
        time.sleep(0.1)


def _predict(session: Session, make_model: MakeModel, more: MoreColumns | None, folder: Path) -> dict[str, Tensor]:
    """Columns `prediction` and `log_prob` of every explained example, and further ones, in the order of the split."""
    title, shards = f"predict {session.split}", session.shards(session.split)
    if not missing_shards(folder / "shards", len(shards)):  # killed before its entry was finished
        model: nn.Module = nn.Identity()
        compute: Callable[[Batch], dict[str, Tensor]] = dict
    else:
        model = session.trained_model(make_model, str(folder / "model"))
        need = prediction_need(footprint_of(model.backbone), session.sequences)
        targets = session.targets("instance", session.split) if _of_completions(session) else None
        if targets is not None and targets.completions is not None:
            need = need.lengthened(targets.completions.columns_of)

        further = None if more is None else more.of(model)

        def predict(batch: Batch, budget: int) -> dict[str, Tensor]:
            scores = model(batch).float()
            require_finite(scores, f"the refitted model's score on {session.split}", batch["index"])
            found = {"index": batch["index"], "prediction": scores.argmax(-1)}
            if further is not None:
                found |= further(batch, budget)
            if targets is not None:
                own = targets.at(batch["index"].cpu())
                return {**found, PHI: -explained_scores(model, own, explained_batch(targets, batch)).float()}
            return found if session.readout.of_vocabulary else {**found, "log_prob": scores.log_softmax(-1)}

        compute = WithinMemory(title, predict, session.memory_budget, need)
    loader = session.loader(session.split)
    return run_pass(title, model, compute, shards, loader, folder / "shards", session.trainers).rows
