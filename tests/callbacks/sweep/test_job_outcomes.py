"""Outcomes of a sweep's jobs, written by several processes at once, and what the command line makes of them."""

from __future__ import annotations

import csv
import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.callbacks.sweep.job_outcomes import (
    add_row,
    begin_sweep,
    outcomes_elsewhere,
    rows_so_far,
    telling_of_lost_jobs,
)
from twinlens.callbacks.sweep.job_process import configuration_options
from twinlens.callbacks.sweep.sweep_table import SweepTable

JOBS, PROCESSES = 12, 4


def end_jobs(sweep: Path, jobs: range) -> None:
    """What a launcher's process does: run jobs with a SweepTable of its own."""
    sys.stdout = open("/dev/null", "w")  # noqa: SIM115  (a process of its own, which ends with this)
    for job in jobs:
        node: Any = {"mode": "MULTIRUN", "job": {"num": job}, "overrides": {"task": [f"seed={job}"]}}
        config = OmegaConf.create({"hydra": node | {"sweep": {"dir": str(sweep), "subdir": str(job)}}})
        table = SweepTable()
        table.on_job_start(config)
        outcome = {"status": "refused", "message": "no"} if job == 3 else {"status": "done", "metrics": {}}
        table.on_job_end(config, SimpleNamespace(_return_value=outcome))  # type: ignore[arg-type]


def test_jobs_that_end_in_several_processes_lose_no_row(tmp_path: Path) -> None:
    begin_sweep(tmp_path)
    (tmp_path / "multirun.yaml").write_text("key: secret")
    start = multiprocessing.get_context("fork").Process
    workers = [start(target=end_jobs, args=(tmp_path, range(n, JOBS, PROCESSES))) for n in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with (tmp_path / "sweep.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["job"], row["status"]) for row in rows] == [
        (str(job), "refused" if job == 3 else "done") for job in range(JOBS)
    ]
    outcomes = outcomes_elsewhere()
    assert len(outcomes) == JOBS
    assert [found for found in outcomes if "message" in found] == [{"status": "refused", "message": "job 3: no"}]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]
    assert outcomes_elsewhere() == []


def test_jobs_of_this_process_count_once_and_a_sweep_begins_empty(tmp_path: Path) -> None:
    row = {"job": 0, "status": "done", "message": ""}
    add_row(tmp_path, row)
    begin_sweep(tmp_path)
    assert rows_so_far(tmp_path) == []
    add_row(tmp_path, row)
    assert len(rows_so_far(tmp_path)) == 1
    assert outcomes_elsewhere() == []  # twinlens.callbacks.run.run_outcome.OUTCOMES has it


class TerminatedWorkerError(RuntimeError):
    """As joblib names it."""


def test_a_lost_job_is_one_sentence_and_other_errors_pass() -> None:
    with pytest.raises(UserError, match=r"has died .*hydra\.launcher\.n_jobs"), telling_of_lost_jobs():
        raise TerminatedWorkerError
    with pytest.raises(ValueError, match="other"), telling_of_lost_jobs():
        raise ValueError("other")


def test_a_job_of_its_own_starts_from_the_same_configuration() -> None:
    sources = [
        {"provider": "hydra", "path": "hydra.conf"},
        {"provider": "main", "path": "/project/conf"},
        {"provider": "command-line", "path": "/runs/1"},
    ]
    hydra = {"runtime": {"config_sources": sources}, "job": {"config_name": "config"}}
    assert configuration_options(hydra) == [
        "--config-name", "config", "--config-path", "/project/conf", "--config-dir", "/runs/1",
    ]  # fmt: skip
