"""Files of a whole sweep, made from its jobs' files alone: sweep.csv, comparison.csv, tables/, figures/, sweep.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from twinlens.callbacks.figures.write import write_results_figures
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.results_csv import read_table, unprotect
from twinlens.callbacks.results.unified_tables import unified_tables
from twinlens.callbacks.sweep import comparison as sweep_comparison
from twinlens.callbacks.sweep import summary as sweep_summary
from twinlens.callbacks.sweep.jobs import Job, read_jobs, rows_of_all, sizes_of_all
from twinlens.callbacks.sweep.seeds import methods_over_seeds
from twinlens.callbacks.sweep.summary import write_rows
from twinlens.callbacks.sweep.sweep_page import write_sweep_page
from twinlens.callbacks.tracking.places import SWEEP_FILE

COLUMNS = ("job", "status", "overrides", "headline", "folder", "message")


@dataclass(frozen=True)
class Sweep:
    """A sweep as it lies in its folder.

    Attributes:
        folder: where its jobs and common files lie.
        outcomes: rows of sweep.csv, one for each job that has ended.
        jobs: those that have results.
        faults: what is wrong with the files of others, by number.
    """

    folder: Path
    outcomes: Sequence[Mapping[str, Any]]
    jobs: Sequence[Job]
    faults: Mapping[int, str]

    @cached_property
    def summary(self) -> list[dict[str, Cell]]:
        """Rows of summary.csv."""
        return sweep_summary.summarise(self.jobs)


def read_sweep(folder: Path, outcomes: Sequence[Mapping[str, Any]] | None = None) -> Sweep:
    """A sweep's jobs.

    Args:
        folder: of the sweep.
        outcomes: rows of sweep.csv; by default they are read.

    Raises:
        UserError: sweep.csv is damaged (named).
    """
    rows = _outcomes(folder / SWEEP_FILE) if outcomes is None else outcomes
    return Sweep(folder, rows, *read_jobs(folder, rows))


def write_files(sweep: Sweep) -> list[dict[str, Cell]]:
    """Write comparison.csv, tables/ and figures/ of all jobs, then sweep.html.

    Returns:
        The rows of comparison.csv; none where there is nothing to compare, and then no file either.

    Raises:
        UserError: a job's file is damaged (named).
    """
    rows = rows_of_all(sweep.jobs)
    for table in [*unified_tables(rows, sizes_of_all(sweep.jobs)), *filter(None, [methods_over_seeds(sweep.jobs)])]:
        table.write(sweep.folder / "tables")
    write_results_figures(rows, sweep.folder / "figures")
    found = sweep_comparison.compare(sweep.jobs)
    if found:
        write_rows(sweep.folder / "comparison.csv", sweep_comparison.COLUMNS, found)
    write_sweep_page(sweep.folder, sweep.outcomes, sweep.jobs, sweep.faults, sweep.summary, found)
    return found


def remake_sweep(folder: Path) -> Path:
    """Make summary.csv, comparison.csv, tables, figures and sweep.html anew from the files of a sweep.

    Raises:
        UserError: see `read_sweep` and `write_files`.
    """
    sweep = read_sweep(folder)
    if sweep.jobs:
        write_rows(folder / "summary.csv", sweep_summary.COLUMNS, sweep.summary)
    write_files(sweep)
    return folder / "sweep.html"


def write_sweep(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write sweep.csv, whole or not at all; cells that look like formulas are protected."""
    write_rows(path, COLUMNS, rows)


def _outcomes(path: Path) -> list[dict[str, Any]]:
    found = read_table(path, ("job", "status", "overrides", "folder"), "start the sweep again")
    return [{"message": "", **{name: unprotect(cell) for name, cell in row.items()}} for _, row in found]
