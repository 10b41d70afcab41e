"""The finished jobs of a sweep, read from their folders, and what sets one apart from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import published_rows, train_sizes

NAMED_IN_ROWS = ("seed", "model", "data", "method", "evaluation", "experiment")
"""Overrides that rows of results.csv show by themselves."""


@dataclass(frozen=True)
class Job:
    """One finished job.

    Attributes:
        number: as in sweep.csv.
        run: its files.
        swept: its swept overrides, apart from those that its rows name themselves, as `key=value; …`.
        rows: of results.csv, with `published` where comparable.
    """

    number: int
    run: RunFiles
    swept: str
    rows: list[dict[str, Cell]]

    @property
    def seed(self) -> Cell:
        """The run's seed."""
        return self.rows[0]["seed"] if self.rows else None

    @property
    def model(self) -> str:
        return str(self.rows[0]["model"]) if self.rows else ""

    @property
    def data(self) -> str:
        return str(self.rows[0]["data"]) if self.rows else ""


def finished_jobs(sweep: Path, outcomes: Sequence[Mapping[str, object]]) -> list[Job]:
    """Jobs that have results, in order; a job whose files are damaged is told of and left out.

    Args:
        sweep: the sweep's folder.
        outcomes: rows of sweep.csv: `job`, `status`, `overrides`, `folder`.
    """
    jobs, faults = read_jobs(sweep, outcomes)
    for number, fault in faults.items():
        print(f"job {number}: {fault}", flush=True)
    return jobs


def read_jobs(sweep: Path, outcomes: Sequence[Mapping[str, object]]) -> tuple[list[Job], dict[int, str]]:
    """Jobs that have results, in order, and what is wrong with the files of others, by number.

    Args:
        sweep: the sweep's folder.
        outcomes: see `finished_jobs`.
    """
    done = [row for row in outcomes if row["status"] == "done"]
    done = [row for row in done if (sweep / str(row["folder"]) / "results.csv").is_file()]
    overrides = swept_settings([str(row["overrides"]).split() for row in done])
    jobs, faults = [], {}
    for row, swept in zip(done, overrides, strict=True):
        run = RunFiles(sweep / str(row["folder"]))
        try:
            jobs.append(Job(int(str(row["job"])), run, swept, published_rows(run)))
        except UserError as error:
            faults[int(str(row["job"]))] = str(error)
    return jobs, faults


def swept_settings(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Per job the overrides that differ between jobs, without those that rows name themselves."""
    apart = [{key: value for key, value in job.items() if key not in NAMED_IN_ROWS} for job in differing(overrides)]
    return ["; ".join(f"{key}={value}" for key, value in job.items()) for job in apart]


def differing(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Per job the overrides that are not the same in all jobs, in one order of keys.

    Example:
        >>> differing([["seed=0", "fit=true"], ["seed=1", "fit=true"]])
        [{'seed': '0'}, {'seed': '1'}]
    """
    by_key = [dict(override.partition("=")[::2] for override in job) for job in overrides]
    keys = dict.fromkeys(key for job in by_key for key in job)
    apart = [key for key in keys if len({job.get(key) for job in by_key}) > 1]
    return [{key: job[key] for key in apart if key in job} for job in by_key]


def rows_of_all(jobs: Sequence[Job]) -> list[dict[str, Cell]]:
    """The rows of all jobs for common tables and figures; what was swept stands beside the model's name."""
    return [{**row, "model": f"{row['model']} ({job.swept})"} if job.swept else row for job in jobs for row in job.rows]


def sizes_of_all(jobs: Sequence[Job]) -> dict[tuple[str, str], int]:
    """Training rows by (model, data), named as in `rows_of_all`."""
    sizes = {}
    for job in jobs:
        for (model, data), size in train_sizes(job.run).items():
            sizes[f"{model} ({job.swept})" if job.swept else model, data] = size
    return sizes
