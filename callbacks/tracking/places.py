"""Sweep that a folder belongs to, which groups its runs in trackers."""

from __future__ import annotations

from pathlib import Path

SWEEP_FILE = "sweep.csv"
"""One row for each job; a folder that has it is a sweep's."""


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / SWEEP_FILE).is_file()


def sweep_id(folder: Path) -> str:
    """Name of the sweep that a run's folder belongs to or is, empty for a run of its own."""
    return next((place.name for place in (folder, folder.parent) if is_sweep(place)), "")
