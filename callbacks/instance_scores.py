"""Instance scores of the explained split against the train split, streamed in blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from torch import Tensor, nn

from attribution.base import Batch
from attribution.instance.protocol import InstanceMethod, InstanceScores
from attribution.instance.stream import TrainSummary, stream_scores
from callbacks.files import is_first_process, write_yaml
from callbacks.instance_inputs import inputs_read, instance_inputs
from callbacks.memory import within_memory
from callbacks.passes import index_loader, run_pass
from callbacks.score_tables import instance_table
from callbacks.session import Session, row_shards
from callbacks.shards import PARTIAL_SUMS

CODE = (
    "attribution.instance.stream",
    "callbacks.instance_scores",
    "callbacks.instance_inputs",
    "callbacks.score_tables",
)


def instance_score_inputs(session: Session, method: Any, split: str) -> dict[str, Any]:
    """What instance scores depend on, beside method and code."""
    return {
        "train": inputs_read(session, method, "train"),
        "examples": inputs_read(session, method, split),
        "split": split,
    }


def build_instance_scores(session: Session, name: str, method: InstanceMethod, split: str, folder: Path) -> None:
    """Score a split and write `<split>/`, `train_summary/` and `method.yaml`."""
    title = f"{name} on {split}"
    train, test = (instance_inputs(session, method, which) for which in ("train", split))
    scorer, budget = within_memory(title, lambda size: method.prepare(train, size), session.memory_budget)
    allowed = [budget]  # what the last block took, after any out-of-memory error

    def compute(batch: Batch) -> dict[str, Tensor]:
        index = batch["index"].cpu()
        part = test.rows(int(index[0]), int(index[-1]) + 1)  # shards hold consecutive rows
        (scores, summary), allowed[0] = within_memory(
            title, lambda size: stream_scores(scorer, part, index, method.top_k, size), allowed[0]
        )
        sums = {f"{PARTIAL_SUMS}{key}": torch.as_tensor(value) for key, value in vars(summary).items()}
        return {**vars(scores), **sums}

    shards = row_shards(len(test))
    result = run_pass(title, nn.Identity(), compute, shards, index_loader, folder / "shards", session.trainers)
    if not is_first_process():
        return
    summary = TrainSummary.empty(len(train))
    for part in result.partials:
        summary = summary.merge(TrainSummary(**{**part, "n_test": int(part["n_test"])}))  # type: ignore[arg-type]
    write_instance_scores(folder, split, InstanceScores(**result.rows), summary, scorer.self_influence())
    write_yaml(folder / "method.yaml", {"name": name, "top_k": method.top_k, **scorer.describe()})


def write_instance_scores(
    folder: Path, split: str, scores: InstanceScores, summary: TrainSummary, self_influence: Tensor | None
) -> None:
    """Write `<split>/` and `train_summary/`."""
    datasets.Dataset(instance_table(scores)).save_to_disk(str(folder / split))
    columns = summary.finalize(self_influence)
    table = pyarrow.table({key: pyarrow.array(value.numpy()) for key, value in columns.items()})
    datasets.Dataset(table).save_to_disk(str(folder / "train_summary"))
