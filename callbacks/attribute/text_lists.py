"""Train texts of a language model, explained at every token that they have a loss for: a pass that leaves lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from torch import Tensor

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.errors import require_finite
from twinlens.attribution.method import Method
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.text_lists import token_lists
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.attribute.method_graph import entries_in_texts, positions_in_texts
from twinlens.callbacks.attribute.text_list_files import text_table
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.models.residual import ResidualEngine

TRAIN = "train"


def reads_tokens(session: Session, methods: Mapping[str, Method], name: str, split: str) -> bool:
    """Whether a neuron method is asked for lists at every token of a split: of the train split of a language model,
    for bridges, unless this is what the run explains."""
    of_texts = split == TRAIN and split != session.split and session.readout.has_text_losses(split)
    return of_texts and positions_in_texts(methods, name) == "all"


def tokens_that_count(rows: Any) -> list[int]:
    """How many tokens of each text have a loss."""
    if "counts" in rows.column_names:
        return [sum(counts) for counts in rows["counts"]]
    return [len(ids) - 1 for ids in rows["input_ids"]]


def text_inputs(methods: Mapping[str, Method], name: str) -> dict[str, Any]:
    """What the lists depend on beside model and texts."""
    return {"explain": {"target": "text"}, "entries": entries_in_texts(methods, name)}


def text_words() -> dict[str, str]:
    """For method.yaml: what is explained."""
    return {"target": "every token of the text that counts"}


def text_list_pass(
    session: Session, methods: Mapping[str, Method], name: str, method: Any, engine: Any, folder: Path
) -> dict[str, Tensor]:
    """The parts of `TokenLists` of all train texts."""
    entries = entries_in_texts(methods, name)
    title = f"{name} on {TRAIN}"
    window, size = int(getattr(session.data, "max_length", None) or 0), session.eval_batch_size
    residual = engine if isinstance(engine, ResidualEngine) else None
    need = of_windows(method.need(EngineSizes(session.footprint, session.sequences, residual)), window)
    there: list[Any] = []

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        if not there:  # by the first batch the model is on its device
            there.append(engine.where_it_is() if isinstance(engine, ResidualEngine) else engine)
        at_once = need.examples(size, batch["input_ids"].shape[-1], budget)
        found = vars(token_lists(method, there[0], batch, budget, entries, at_once))
        require_finite(found["score"], f"the score of {title}", found["index"])
        return dict(found)

    cut = WithinMemory(title, compute, session.memory_budget, need)
    shards, loader = session.shards(TRAIN), session.loader(TRAIN)
    return run_pass(title, session.readable, cut, shards, loader, folder / "shards", session.trainers).rows


def of_windows(need: Need, window: int) -> Need:
    """What a token needs: a text is read in windows, whatever its length; 0: it has none."""
    return need.lengthened(lambda columns: min(columns, window) if window else columns)


def write_text_lists(session: Session, folder: Path, rows: Mapping[str, Tensor], method: Any) -> None:
    """Write `train/`."""
    n_texts = len(session.data.splits[TRAIN])
    table = text_table(rows, n_texts, method.role, method.unit_kind, session.footprint.experts)
    datasets.Dataset(table).save_to_disk(str(folder / TRAIN))
