"""Rank of this process among several."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this process writes what all processes of a run computed together."""
    return getattr(rank_zero_only, "rank", 0) == 0
