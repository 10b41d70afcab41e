"""Instance scores of the explained split against the train split, streamed in blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow
import torch
from torch import Tensor, nn

from twinlens.attribution.instance.costs import PassSizes
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.instance.stream import stream_scores
from twinlens.attribution.instance.train_summary import TrainSummary
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.attribute.explained_outputs import (
    consecutive,
    explained_columns,
    explained_inputs,
    explained_words,
    left_out_of,
    with_empty_lists,
)
from twinlens.callbacks.attribute.group_scores import asked_groups, groups_of, write_group_scores
from twinlens.callbacks.attribute.reads import PassCost, Planned, Reads
from twinlens.callbacks.attribute.score_files import instance_table, write_description
from twinlens.callbacks.attribute.token_rows import TokenRows, of_documents, token_table, with_places
from twinlens.callbacks.passes.memory import within_memory
from twinlens.callbacks.passes.predict_pass import index_loader, run_pass
from twinlens.callbacks.passes.shards import PARTIAL_SUMS, row_shards, rows_per_shard
from twinlens.callbacks.store.store import Finish

Side = Literal["train", "test"]
"""Which part a split plays: that of the rows that are put forward, or that of what is explained."""


class Streamed(Reads):
    """A form in which both splits come whole, so that their scores are streamed in blocks."""

    @abstractmethod
    def load(self, split: str, side: Side) -> Any:
        """What the method asks for in `reads`, in row order."""

    @abstractmethod
    def identify(self, split: str, side: Side) -> Any:
        """What identifies these inputs beside what is explained, plain values."""

    def tokens(self) -> TokenRows | None:
        """What train rows are where they are tokens; None: they are examples."""
        return None

    def shares(self, scorer: Any, test: Any, lists: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Further columns of lists that share their scores out; none, unless the form says otherwise.

        Args:
            scorer: of the method.
            test: of all explained examples.
            lists: columns of `InstanceScores`.
        """
        return {}

    def covered(self) -> dict[str, Any]:
        """Parameters that the method's gradients cover and leave out; empty where that is no question."""
        return {}

    def held(self, plan: Planned) -> int:
        """Bytes of both splits' inputs; head inputs, which a prediction leaves, unless the form says otherwise."""
        n_rows = len(plan.lengths["train"]) + len(plan.lengths[self.session.split])
        return 4 * plan.shape.footprint.hidden_size * n_rows * self.session.sequences.read

    def inputs(self, split: str) -> dict[str, Any]:
        """Both splits, and what is explained."""
        sides = {"train": self.identify("train", "train"), "examples": self.identify(split, "test")}
        groups = groups_of(self.session, split)
        asked = {"groups": list(groups.items())} if groups else {}
        return {**sides, "split": split, **asked, **explained_inputs(self.session, self.method)}

    def build(self, split: str, folder: Path) -> Finish:
        """Write `<split>/`, `train_summary/`, of queries asked together `groups/`, for rows of tokens `train_tokens/`,
        and `method.yaml`."""
        session, method = self.session, self.method
        title = f"{self.name} on {split}"
        train, test = self.load("train", "train"), self.load(split, "test")
        left_out = left_out_of(session, method, split)
        scorer, budget = within_memory(title, lambda size: method.prepare(train, size), session.memory_budget)
        allowed = [budget]  # what the last block took, after any out-of-memory error

        def compute(batch: Batch) -> dict[str, Tensor]:
            index = batch["index"].cpu()  # shards hold consecutive rows
            summary, parts = TrainSummary.empty(len(train)), []
            # nothing of the model runs here, so that mixed precision has no business in the products
            with torch.autocast(batch["index"].device.type, enabled=False):
                for rows in consecutive(index[~left_out[index]]):
                    part = test.rows(int(rows[0]), int(rows[-1]) + 1)
                    (scores, seen), allowed[0] = within_memory(
                        title, partial(stream_scores, scorer, part, rows, method.top_k), allowed[0]
                    )
                    summary = summary.merge(seen)
                    parts.append(scores)
            sums = {f"{PARTIAL_SUMS}{key}": torch.as_tensor(value) for key, value in vars(summary).items()}
            return {**vars(with_empty_lists(parts, index, min(method.top_k, len(train)))), **sums}

        shards = row_shards(len(test))
        result = run_pass(title, nn.Identity(), compute, shards, index_loader, folder / "shards", session.trainers)

        def finish() -> None:
            summary = TrainSummary.empty(len(train))
            for part in result.partials:
                summary = summary.merge(TrainSummary(**{**part, "n_test": int(part["n_test"])}))  # type: ignore[arg-type]
            explained = explained_columns(session, method, split)
            shares = self.shares(scorer, test, result.rows)
            write_instance_scores(
                folder, split, result.rows, summary, scorer.self_influence(), self.tokens(), explained, shares
            )
            groups = asked_groups(session, split, left_out)
            if groups:
                write_group_scores(folder, scorer, test, groups, method.top_k, allowed[0], self.tokens())
            described = {"top_k": method.top_k, **scorer.describe(), **self.covered()}
            write_description(folder, self.name, method, {**described, **explained_words(session, method)})

        return finish

    def cost(self, plan: Planned, split: str) -> PassCost:
        """See `InstanceMethod.cost`; beside it what the method reads of both splits, on the host."""
        session, method = self.session, self.method
        n_train, n_test = len(plan.lengths["train"]), len(plan.lengths[split])
        shard = rows_per_shard(n_test)
        checkpoints = plan.n_epochs if self.needs_epochs else 1
        budget, read = session.memory_budget, session.sequences.read
        cost = method.cost(PassSizes(plan.shape.head, n_train, n_test, shard, budget, read, checkpoints))
        seconds = None if cost.operations is None else cost.operations / plan.times.host
        if seconds is not None and groups_of(session, split):
            seconds *= 3  # once more for the groups, and for what their lists pull on
        # lists in shards and table; each shard's sums over the train split
        disk = 2 * n_test * method.top_k * 24 + (-(-n_test // shard) * 24 + 40) * n_train
        return PassCost(seconds, disk, cost.memory, self.held(plan), on_host=True, remark=cost.remark)


def write_instance_scores(
    folder: Path,
    split: str,
    rows: Mapping[str, Tensor],
    summary: TrainSummary,
    self_influence: Tensor | None,
    tokens: TokenRows | None = None,
    explained: Mapping[str, Tensor] = {},
    shares: Mapping[str, Tensor] = {},
) -> None:
    """Write `<split>/` and `train_summary/`.

    Args:
        rows: columns of `InstanceScores`.
        tokens: what train rows are where they are tokens; then `train_tokens/` is written too.
        explained: `target` and `target_against` of every test, [tests] each, where the scores speak of them.
        shares: further lists beside the scores, [tests, entries, …].
    """
    lists, positions = (dict(rows), dict(shares)) if tokens is None else with_places(rows, tokens)
    datasets.Dataset(instance_table(InstanceScores(**lists), positions, explained)).save_to_disk(str(folder / split))
    columns = summary.finalize(self_influence)
    if tokens is not None:
        datasets.Dataset(token_table(columns, tokens)).save_to_disk(str(folder / "train_tokens"))
        columns = of_documents(columns, tokens)
    table = pyarrow.table({key: pyarrow.array(value.numpy()) for key, value in columns.items()})
    datasets.Dataset(table).save_to_disk(str(folder / "train_summary"))
