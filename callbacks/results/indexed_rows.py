"""Stored datasets that are looked up by their `index` column, memory-mapped and read by row or in Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from twinlens.attribution.errors import UserError

REMAKE = "make it again with overwrite=true"
"""What to do about a file that cannot be read."""


@dataclass(frozen=True)
class Rows:
    """A Hugging Face dataset that is looked up by its `index` column."""

    path: Path
    dataset: Dataset

    @cached_property
    def index(self) -> np.ndarray:
        """The `index` column, [rows], int64."""
        return np.asarray(self.column("index"), dtype=np.int64)

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.index, kind="stable")

    def column(self, name: str) -> np.ndarray:
        """One column as an array, [rows]."""
        return np.asarray(self.dataset.with_format("numpy")[name][:])

    def positions(self, indices: Sequence[int]) -> np.ndarray:
        """Where the rows with these indices lie, −1 where there is none, [len(indices)]."""
        wanted = np.asarray(indices, dtype=np.int64)
        if len(self.index) == 0:
            return np.full(len(wanted), -1)
        found = np.searchsorted(self.index, wanted, sorter=self._order).clip(max=len(self.index) - 1)
        position = self._order[found]
        return np.where(self.index[position] == wanted, position, -1)

    def rows(self, indices: Sequence[int], without: Sequence[str] = ()) -> dict[int, dict[str, Any]]:
        """Rows by index; indices that do not occur are left out."""
        position = self.positions(indices)
        kept = [int(p) for p in position if p >= 0]
        names = [name for name in self.dataset.column_names if name not in without]
        try:
            selected = self.dataset.select_columns(names).select(kept).to_list() if kept else []
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} cannot be read ({error}); expected a dataset: {REMAKE}.") from None
        return {int(row["index"]): row for row in selected}

    def every(self, indices: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        """All rows with these indices, in their order; an index that does not occur has none."""
        found: dict[int, list[dict[str, Any]]] = {int(index): [] for index in indices}
        for row in self.dataset.select(np.flatnonzero(np.isin(self.index, indices)).tolist()).to_list():
            found[int(row["index"])].append(row)
        return found

    def batches(self, columns: Sequence[str], size: int = 4096) -> Iterator[pa.Table]:
        """The named columns in Arrow tables of at most `size` rows."""
        yield from self.dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=size)


def read_tokens(rows: Rows) -> list[bytes]:
    """What the model reads of each example, for comparing; choices of a question are read in their order."""
    keys: list[bytes] = []
    for table in rows.batches(["input_ids"]):
        lists = table.column("input_ids").combine_chunks()
        ends = lists.offsets.to_numpy()
        values = lists.values
        while hasattr(values, "offsets"):
            ends, values = values.offsets.to_numpy()[ends], values.values
        flat = values.to_numpy(zero_copy_only=False)
        keys += [flat[start:end].tobytes() for start, end in pairwise(ends)]
    return keys
