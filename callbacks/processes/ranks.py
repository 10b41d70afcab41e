"""Rank of this process among several, and where all of them meet."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this process writes what all processes of a run computed together."""
    return getattr(rank_zero_only, "rank", 0) == 0


def meet() -> None:
    """Wait for all processes of the run, where there are several that can talk to each other."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
