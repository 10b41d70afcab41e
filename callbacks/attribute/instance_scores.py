"""Instance scores of the explained split against the train split, streamed in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from torch import Tensor, nn

from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScores
from twinlens.attribution.instance.stream import stream_scores
from twinlens.attribution.instance.train_summary import TrainSummary
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.attribute.instance_inputs import inputs_read, instance_inputs
from twinlens.callbacks.attribute.method_graph import reads_of
from twinlens.callbacks.attribute.score_files import instance_table, write_description
from twinlens.callbacks.attribute.token_rows import TokenRows, of_documents, token_rows, token_table, with_places
from twinlens.callbacks.attribute.whole_gradient_inputs import covered_by
from twinlens.callbacks.passes.memory import within_memory
from twinlens.callbacks.passes.predict_pass import index_loader, run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import PARTIAL_SUMS, row_shards
from twinlens.callbacks.processes.ranks import is_first_process


def instance_score_inputs(session: Session, method: Any, split: str) -> dict[str, Any]:
    """What instance scores depend on, beside method and code."""
    return {
        "train": inputs_read(session, method, "train"),
        "examples": inputs_read(session, method, split),
        "split": split,
    }


def build_instance_scores(session: Session, name: str, method: InstanceMethod, split: str, folder: Path) -> None:
    """Score a split and write `<split>/`, `train_summary/`, for rows of tokens `train_tokens/`, and `method.yaml`."""
    title = f"{name} on {split}"
    train, test = (instance_inputs(session, method, which) for which in ("train", split))
    scorer, budget = within_memory(title, lambda size: method.prepare(train, size), session.memory_budget)
    allowed = [budget]  # what the last block took, after any out-of-memory error

    def compute(batch: Batch) -> dict[str, Tensor]:
        index = batch["index"].cpu()
        part = test.rows(int(index[0]), int(index[-1]) + 1)  # shards hold consecutive rows
        # nothing of the model runs here, so that mixed precision has no business in the products
        with torch.autocast(batch["index"].device.type, enabled=False):
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
    per_token = reads_of(method) == "rows" and getattr(method, "per", "example") == "token"
    tokens = token_rows(session) if per_token else None
    write_instance_scores(folder, split, result.rows, summary, scorer.self_influence(), tokens)
    covered = covered_by(session, method.params) if reads_of(method) == "rows" else {}  # type: ignore[attr-defined]
    write_description(folder, name, {"top_k": method.top_k, **scorer.describe(), **covered})


def write_instance_scores(
    folder: Path,
    split: str,
    rows: Mapping[str, Tensor],
    summary: TrainSummary,
    self_influence: Tensor | None,
    tokens: TokenRows | None = None,
) -> None:
    """Write `<split>/` and `train_summary/`.

    Args:
        rows: columns of `InstanceScores`.
        tokens: what train rows are where they are tokens; then `train_tokens/` is written too.
    """
    lists, positions = (dict(rows), None) if tokens is None else with_places(rows, tokens)
    datasets.Dataset(instance_table(InstanceScores(**lists), positions)).save_to_disk(str(folder / split))
    columns = summary.finalize(self_influence)
    if tokens is not None:
        datasets.Dataset(token_table(columns, tokens)).save_to_disk(str(folder / "train_tokens"))
        columns = of_documents(columns, tokens)
    table = pyarrow.table({key: pyarrow.array(value.numpy()) for key, value in columns.items()})
    datasets.Dataset(table).save_to_disk(str(folder / "train_summary"))
