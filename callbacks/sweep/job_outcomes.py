"""Outcome of each job of a sweep, whichever process ran it: one file per job, read by all that need the whole.

A launcher (`hydra/launcher`) may run jobs in other processes or on other machines at the same time. They share the
sweep's folder and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.told_rows import SWEEP_NOTES as FOLDER
from twinlens.callbacks.store.files import write_json

LOST = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError", "FailedJobError")
"""What joblib and submitit raise when a job's process has died."""
NO_NUMBER = "No trials are completed"
"""What Optuna's sweeper raises where every job has failed."""
PROJECT = str(Path(__file__).resolve().parents[2])

_SWEEPS: list[Path] = []
"""Folders of the sweeps that this process has begun."""


def begin_sweep(sweep: Path) -> None:
    """Begin a sweep in this process; what an earlier one has left in its folder is forgotten.

    Processes that a launcher starts find this project's packages wherever they are started.
    """
    shutil.rmtree(sweep / FOLDER, ignore_errors=True)
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([PROJECT, *([known] if known else [])])
    _SWEEPS.append(sweep)


def add_row(sweep: Path, row: Mapping[str, Any]) -> None:
    """Keep the row of a job, by its number in `job`; a repeated job replaces its row."""
    folder = sweep / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{row['job']}.json", {**row, "process": _this_process()})


def rows_so_far(sweep: Path) -> list[dict[str, Any]]:
    """The rows of all jobs that have ended, in order of their number; `process` tells where each ran."""
    files = sorted((sweep / FOLDER).glob("*.json"), key=lambda file: int(file.stem))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


@contextmanager
def alone(sweep: Path) -> Iterator[None]:
    """Let one process at a time read all rows and write tables of them, so that no older table replaces a newer."""
    folder = sweep / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # given back also when the process is killed
        yield


def ran_here(row: Mapping[str, Any]) -> bool:
    """Whether this process ran the job."""
    return bool(row["process"] == _this_process())


def outcomes_elsewhere() -> list[dict[str, Any]]:
    """The outcomes, as `outcome_of` gives them, of jobs that other processes ran for this one.

    Removes what the sweep kept for it.
    """
    found = []
    for sweep in filter(os.path.isdir, _SWEEPS):  # Hydra may not have come so far as to make it
        found += [
            {"status": row["status"], **({"message": f"job {row['job']}: {row['message']}"} if row["message"] else {})}
            for row in rows_so_far(sweep)
            if not ran_here(row)
        ]
        shutil.rmtree(sweep / FOLDER, ignore_errors=True)
        # Hydra's and submitit's copies of the jobs hold whatever was typed, keys and paths included; the logs stay
        for copy in [sweep / "multirun.yaml", *(sweep / ".submitit").rglob("*.pkl")]:
            copy.unlink(missing_ok=True)
    _SWEEPS.clear()
    return found


@contextmanager
def telling_of_lost_jobs() -> Iterator[None]:
    """Say in one sentence that the process of a job has died, or that a sweeper has found no number in any job.

    Raises:
        UserError: what to do about it.
    """
    try:
        yield
    except Exception as error:
        if str(error).startswith(NO_NUMBER):
            raise UserError(
                "no job of the sweep has given the number to optimise, so there is no best one; expected at least one "
                "job that ends: sweep.csv says what each was refused for, mend that."
            ) from error
        if type(error).__name__ not in LOST:
            raise
        raise UserError(
            "the process of a job of the sweep has died before it could say why; expected memory and time for every "
            "job: see what it wrote to .submitit/ in the sweep's folder, lower hydra.launcher.n_jobs (joblib) or raise "
            "hydra.launcher.mem_gb and timeout_min (submitit); sweep.csv lists the jobs that have ended, finished "
            "stages are kept, and the same command goes on."
        ) from error


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
