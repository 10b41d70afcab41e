"""Run of a sweep's own in its jobs' trackers: its tables, figures and means, once the last job has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.results_csv import read_csv, unprotect
from twinlens.callbacks.run.run_outcome import code_of
from twinlens.callbacks.sweep.sweep_files import Sweep
from twinlens.callbacks.tracking.gather import findings_of_sweep
from twinlens.callbacks.tracking.trackers import tracked

TABLES = ("sweep", "summary", "comparison")
"""Files of the sweep that are shown, where they are there."""


def track_sweep(loggers: Sequence[Logger], sweep: Sweep) -> None:
    """Begin and end the sweep's run in these trackers; nothing where there is none.

    Its configuration is what its jobs have in common.

    Args:
        loggers: opened on the sweep's folder.
        sweep: its summary and tables are what is sent.

    Raises:
        UserError: a file of the sweep is damaged (named).
    """
    if not loggers:
        return
    with tracked(loggers, lambda: in_common([job.run.config for job in sweep.jobs]), code_of) as send:
        send(lambda: findings_of_sweep(sweep.folder, sweep.outcomes, sweep.summary, tables_of(sweep.folder)))


def in_common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings that all configurations share, to any depth; a list is one value."""
    first, *others = configs
    shared = {}
    for key, value in first.items():
        if isinstance(value, dict) and all(isinstance(other.get(key), dict) for other in others):
            shared[key] = in_common([value, *(other[key] for other in others)])
        elif all(key in other and other[key] == value for other in others):
            shared[key] = value
    return shared


def tables_of(folder: Path) -> dict[str, tuple[list[str], list[dict[str, Cell]]]]:
    """Name of each table file → its columns and rows, all cells as text."""
    found: dict[str, tuple[list[str], list[dict[str, Cell]]]] = {}
    for name in TABLES:
        path = folder / f"{name}.csv"
        if path.is_file():
            header, lines = read_csv(path)
            found[name] = header, [dict(zip(header, map(unprotect, cells), strict=True)) for _, cells in lines]
    return found
