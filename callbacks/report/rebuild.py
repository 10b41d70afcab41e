"""Making a finished run's report.html again from its files: `report.of=RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results.outside_rows import put_beside

NEEDED = "config.yaml"
"""File that every run's folder has, of every version."""


def run_folder(run: str | Path, remedy: str = "give that one") -> Path:
    """The folder of a finished run.

    Args:
        run: as it was given.
        remedy: what to do where it is none.

    Raises:
        UserError: it is no run's folder.
    """
    folder = Path(run)
    if not (folder / NEEDED).is_file():
        raise UserError(
            f"{folder} is no run's folder: it has no {NEEDED}; expected the folder that a run names in its last line, "
            f"for example outputs/runs/2026-01-31_12-00-00_tiny_demo_s0: {remedy}."
        )
    return folder


def rebuild(run: str | Path, beside: str | Sequence[str] | None = None) -> Path:
    """Write tables, figures and report.html of a run anew, of this version or an older one; nothing is computed.

    Args:
        run: folder of the run.
        beside: files of others' rows, see `put_beside`; None: those that stand there already.

    Raises:
        UserError: it is no run's folder, a file of the run is missing or damaged (named), or rows of others that cannot
            stand beside it.
    """
    folder = run_folder(run)
    if beside is not None:
        put_beside(folder, [beside] if isinstance(beside, str) else beside)
    return write_report(folder)
