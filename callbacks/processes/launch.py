"""Processes of one run: the facts that each knows of the others before they can talk."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from dataclasses import dataclass

import psutil

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.parents import start_others

VARIABLE = "TWINLENS_LAUNCH"
"""Environment variable that the first process hands down to those that Lightning starts for it."""
RANKS = ("RANK", "SLURM_PROCID")
"""Set by torchrun and SLURM, which start all processes themselves; Lightning leaves them alone."""
GIVEN = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID")
"""What torchrun and SLURM tell all processes of a run alike."""
BY_HAND = ("bash", "interactive")
"""Names of SLURM jobs inside which commands are typed: Lightning then starts the processes, not SLURM."""


@dataclass(frozen=True)
class Launch:
    """What all processes of one run have in common.

    Attributes:
        token: the same in all of them, letters and digits.
        started: seconds since 1970 by this machine's clock.
        alone: whether no other run has the token; torchrun and SLURM may start two with the same.
    """

    token: str
    started: float
    alone: bool


@dataclass(frozen=True)
class StartedProcesses:
    """The processes that torchrun or SLURM has started for one command.

    Attributes:
        by: what started them, as a user knows it.
        rank: number of this one.
        on_each: processes on each node.
        nodes: how many nodes.
    """

    by: str
    rank: int
    on_each: int
    nodes: int

    @property
    def total(self) -> int:
        """How many there are."""
        return self.on_each * self.nodes


def begin_launch(first: bool) -> Launch:
    """The launch of this process.

    Args:
        first: whether it is the run's first process, which begins a launch of its own unless torchrun or SLURM did.
    """
    if any(name in os.environ for name in RANKS):
        given = ":".join(os.environ.get(name, "") for name in GIVEN)
        token = hashlib.sha256(given.encode()).hexdigest()[:32]
        return Launch(token, psutil.Process().create_time(), alone=False)
    if first:
        start_others()
    if first or VARIABLE not in os.environ:
        os.environ[VARIABLE] = f"{time.time()}|{uuid.uuid4().hex}"
    started, _, token = os.environ[VARIABLE].partition("|")
    return Launch(token, float(started), alone=True)


def started_processes() -> StartedProcesses | None:
    """What torchrun or srun has started, read from the environment; None where neither did."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        total = _number("WORLD_SIZE")
        on_each = min(_number("LOCAL_WORLD_SIZE", total), total)
        return StartedProcesses("torchrun", _number("RANK"), on_each, max(1, total // max(1, on_each)))
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in BY_HAND:
        total, nodes = _number("SLURM_NTASKS"), _number("SLURM_NNODES", 1)
        on_each = _number("SLURM_NTASKS_PER_NODE", max(1, total // max(1, nodes)))
        return StartedProcesses("srun", _number("SLURM_PROCID", 0), on_each, max(1, total // max(1, on_each)))
    return None


def refuse_other_processes(on_each: int, nodes: int) -> None:
    """Refuse a run whose settings speak of other processes than torchrun or SLURM has started.

    Each would wait for ever for those that do not come, or take itself for the only one and overwrite what the others
    write.

    Args:
        on_each: processes on each node by the Trainer's settings.
        nodes: by the Trainer's settings.

    Raises:
        UserError: naming both.
    """
    found = started_processes()
    if found is None:
        return
    if (found.on_each, found.nodes) != (on_each, nodes):
        raise UserError(
            f"{found.by} has started {found.nodes} x {found.on_each} process(es) (nodes x processes on each), but "
            f"trainer.num_nodes={nodes} and trainer.devices speak of {nodes} x {on_each}; expected the same: set "
            f"trainer=ddp (ddp_cpu on CPUs) trainer.num_nodes={found.nodes} trainer.devices={found.on_each}, or start "
            f"them with {_options(found.by, nodes, on_each)}."
        )
    if found.by == "srun" and found.total > 1:
        _refuse_half_a_step(nodes, on_each)


def _refuse_half_a_step(nodes: int, on_each: int) -> None:
    """A batch script whose command lacks srun runs once, and Lightning wants the tasks per node said."""
    missing = "srun" if "SLURM_STEP_ID" not in os.environ else "--ntasks-per-node"
    if missing == "srun" or "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(
            f"SLURM was asked for {nodes} x {on_each} processes, but the command was started without {missing}; "
            f"expected all of them to be started alike: write {_options('srun', nodes, on_each)} python train.py …."
        )


def _options(by: str, nodes: int, on_each: int) -> str:
    if by == "torchrun":
        return f"torchrun --nnodes={nodes} --nproc-per-node={on_each}"
    return f"srun --nodes={nodes} --ntasks-per-node={on_each}"


def _number(name: str, default: int | None = None) -> int:
    """A number that the environment gives.

    Raises:
        UserError: it is none.
    """
    given = os.environ.get(name, default)
    try:
        return int(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(
            f"the environment variable {name}={given!r} is no number; expected what torchrun or srun sets: start the "
            "run with one of them, or unset it."
        ) from None
