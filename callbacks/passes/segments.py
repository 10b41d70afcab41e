"""Segments: large shards whose batches add up, so that only what comes of all of them is written."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from twinlens.callbacks.passes.predict_pass import Shards
from twinlens.data.sampling import length_sorted_batches


def segments_of(rows: Any, batch_size: int, at_least: int, at_most: int) -> list[list[list[int]]]:
    """Length-sorted batches of a split, grouped into segments; the same for any number of processes.

    Args:
        rows: a prepared split.
        batch_size: rows per batch.
        at_least: rows of a segment, as far as there are as many.
        at_most: number of segments.
    """
    return length_sorted_batches(rows, batch_size, max(1, at_least, -(-len(rows) // at_most)))


class Progress:
    """Tells when a process has seen the last batch of a segment; it takes one segment after the other.

    Args:
        shards: the segments of the pass.
    """

    def __init__(self, shards: Shards) -> None:
        self._sizes = {row: sum(map(len, segment)) for segment in shards for batch in segment for row in batch}
        self._seen = 0

    def ends(self, index: Tensor) -> bool:
        """Whether the batch with these rows, [batch], is the last one of its segment."""
        self._seen += len(index)
        if self._seen < self._sizes[int(index[0])]:
            return False
        self._seen = 0
        return True
