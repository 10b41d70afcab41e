"""Making a finished run's report.html again from its files: `report.of=RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results.outside_rows import put_beside

NEEDED = "config.yaml"
"""File that every run's folder has, of every version."""


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


def run_folder(run: str | Path) -> Path:
    """The folder of a finished run.

    Raises:
        UserError: it is none.
    """
    folder = Path(run)
    if not (folder / NEEDED).is_file():
        raise UserError(
            f"{folder} is no run's folder: it has no {NEEDED}; expected the folder that a run names in its last line, "
            "for example outputs/runs/2026-01-31_12-00-00_tiny_demo_s0: give that one."
        )
    return folder


def report_command(config: Any) -> dict[str, float]:
    """Make a report anew if the configuration says so, which is then all that happens.

    Returns:
        How many were made; empty where the configuration asks for a run.

    Raises:
        UserError: see `rebuild`.
    """
    asked = config.get("report") or {}
    run = asked.get("of")
    if run is None and asked.get("beside") is not None:
        raise UserError(
            f"report.beside={asked['beside']!s:.200} names rows of others, but nothing says whose run they stand "
            "beside; expected both: add report.of=RUN."
        )
    if run is None:
        return {}
    print(f"report: {rebuild(run, asked.get('beside'))}", flush=True)
    return {"report/made": 1.0}
