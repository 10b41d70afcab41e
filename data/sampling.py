"""Rows of a batch: length-sorted batches in shards, seeded permutations, limits and selections."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy
import pyarrow
import pyarrow.compute as compute
import torch

from twinlens.data.source_rows import SourceRows


class ExplicitBatches(torch.utils.data.Dataset):
    """A dataset whose items are ready batches.

    Args:
        rows: a prepared split.
        batches: row numbers of each batch.
        collate: makes a batch of rows.
    """

    def __init__(
        self, rows: datasets.Dataset, batches: Sequence[Sequence[int]], collate: Callable[[list[dict[str, Any]]], Any]
    ) -> None:
        self.rows = rows
        self.batches = [list(batch) for batch in batches]
        self.collate = collate

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> Any:
        return self.collate([self.rows[row] for row in self.batches[item]])


def token_lengths(dataset: datasets.Dataset) -> list[int]:
    """Number of tokens of every row, [rows]; for multiple choice of the longest sequence of the question."""
    column = dataset.with_format("arrow")["input_ids"][:]
    if pyarrow.types.is_list(column.type.value_type):
        counts = compute.list_value_length(column).to_numpy()
        lengths = compute.list_value_length(compute.list_flatten(column)).to_numpy()
        return [int(longest) for longest in numpy.maximum.reduceat(lengths, counts.cumsum() - counts)]
    return [int(length) for length in compute.list_value_length(column).to_pylist()]


def length_sorted_batches(dataset: datasets.Dataset, batch_size: int, rows_per_shard: int) -> list[list[list[int]]]:
    """Batches of rows of similar length, so that little is computed on padding.

    Shard s holds the rows s·rows_per_shard … (s+1)·rows_per_shard − 1 and no batch spans two shards, so a finished
    shard can be stored and never read again. Within a shard the longest rows come first: a batch too large for the
    memory fails at once. Deterministic and independent of the number of processes.

    Args:
        dataset: a prepared split.
        batch_size: rows per batch, at least 1.
        rows_per_shard: rows per shard, at least 1.

    Returns:
        shards → batches → row numbers.
    """
    lengths = token_lengths(dataset)
    shards = []
    for start in range(0, len(lengths), rows_per_shard):
        rows = range(start, min(start + rows_per_shard, len(lengths)))
        by_length = sorted(rows, key=lambda row: (-lengths[row], row))
        shards.append([by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)])
    return shards


def permutation(n: int, seed: int) -> list[int]:
    """A seeded permutation of 0 … n−1, the same on every platform and version."""
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return order


def follow_twins(sources: Mapping[str, SourceRows], chosen: Mapping[str, list[int]]) -> None:
    """Let the column `twin` of train and test, row numbers of the other split's source, name rows as they are used.

    Args:
        sources: all splits; their `twin` is rewritten, -1 where limit or selection left the twin out.
        chosen: the rows used of each split.
    """
    for split, other in (("train", "test"), ("test", "train")):
        place = {row: index for index, row in enumerate(chosen[other])}
        sources[split].columns["twin"] = [place.get(twin, -1) for twin in sources[split].columns["twin"]]
