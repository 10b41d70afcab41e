"""Which processes belong to one run: what they know of each other before they can talk."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass

import psutil

VARIABLE = "TWINLENS_LAUNCH"
"""Environment variable that the first process hands down to those that Lightning starts for it."""
RANKS = ("RANK", "SLURM_PROCID")
"""Set by torchrun and SLURM, which start all processes themselves; Lightning leaves them alone."""
GIVEN = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID")
"""What torchrun and SLURM tell all processes of a run alike."""


@dataclass(frozen=True)
class Launch:
    """What all processes of one run have in common.

    Attributes:
        token: the same in all of them, another one in every other run.
        started: seconds since 1970; what the run writes is younger.
    """

    token: str
    started: float


def begin_launch(first: bool) -> Launch:
    """The launch of this process.

    Args:
        first: whether it is the run's first process, which begins a launch of its own unless torchrun or SLURM did.
    """
    if any(name in os.environ for name in RANKS):
        return Launch(":".join(os.environ.get(name, "") for name in GIVEN), psutil.Process().create_time())
    if first or VARIABLE not in os.environ:
        os.environ[VARIABLE] = f"{time.time()}|{uuid.uuid4().hex}"
    started, _, token = os.environ[VARIABLE].partition("|")
    return Launch(token, float(started))
