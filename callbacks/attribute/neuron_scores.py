"""Neuron scores of a split: one pass over the model, whichever split it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.neuron.protocol import NeuronMethod, Role, UnitKind, engine_kind, role, unit_kind
from twinlens.attribution.neuron.ranking import NeuronScores
from twinlens.attribution.protocols import Batch, NeuronModel
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.callbacks.attribute.neuron_costs import neuron_need
from twinlens.callbacks.attribute.score_files import neuron_table, write_description
from twinlens.callbacks.attribute.stored_ranks import with_stored_ranks
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import index_loader, run_pass
from twinlens.callbacks.passes.session import Predictions, Session
from twinlens.callbacks.passes.shards import row_shards
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.models.residual import ResidualEngine


def neuron_inputs(session: Session, split: str) -> dict[str, Any]:
    """What neuron scores of a split depend on, beside method and code."""
    return {"examples": session.predictions[split].fingerprint, "split": split, **session.reading}


def build_neuron_scores(session: Session, name: str, method: NeuronMethod, split: str, folder: Path) -> None:
    """Attribute a split and write `<split>/` and `method.yaml`."""
    engine = engine_of(session.readable, method)
    description = method.describe(engine)
    method = with_stored_ranks(session, name, method, engine, split)
    rows = _neuron_pass(session, name, method, engine, split, folder)
    if is_first_process():
        write_neuron_scores(folder, split, rows, session.predictions[split], (role(method), unit_kind(method)))
        write_description(folder, name, {**description, **session.reading})


def engine_of(model: Any, method: NeuronMethod) -> NeuronModel | ResidualModel:
    """The engine that a method asks for, over the model's current weights."""
    return model.residual_engine() if engine_kind(method) == "residual" else model.engine()


def write_neuron_scores(
    folder: Path,
    split: str,
    rows: dict[str, Tensor],
    predictions: Predictions,
    kind: tuple[Role, UnitKind] = ("value", "neuron"),
) -> None:
    """Write `<split>/`; scores that explain nothing in particular are said of what the model is asked for: its answer
    where the classes are a vocabulary, else the predicted class."""
    if "target" not in rows:
        rows = {**rows, **predictions.explained()}
    datasets.Dataset(neuron_table(rows, *kind)).save_to_disk(str(folder / split))


def tensors_of(scores: NeuronScores) -> dict[str, Tensor]:
    """The parts that a method gave."""
    return {name: tensor for name, tensor in vars(scores).items() if tensor is not None}


def _neuron_pass(
    session: Session,
    name: str,
    method: NeuronMethod,
    engine: NeuronModel | ResidualModel,
    split: str,
    folder: Path,
) -> dict[str, Tensor]:
    """All examples' best neurons, in the order of `index`."""
    title = f"{name} on {split}"
    there: list[Any] = []

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        if not there:  # by the first batch the model is on its device, and so must be what is kept of its weights
            there.append(engine.where_it_is() if isinstance(engine, ResidualEngine) else engine)
        scores = method.attribute(there[0], batch, budget)
        require_finite(scores.score, f"the score of {title}", batch["index"])
        return {"index": batch["index"], **tensors_of(scores)}

    if method.reads_text:
        shards, loader = session.shards(split), session.loader(split)
    else:
        shards, loader = row_shards(len(session.data.splits[split])), index_loader
    residual = engine if isinstance(engine, ResidualEngine) else None
    need = neuron_need(method, session.footprint, session.sequences, residual)
    cut = WithinMemory(title, compute, session.memory_budget, need)
    return run_pass(title, session.readable, cut, shards, loader, folder / "shards", session.trainers).rows
