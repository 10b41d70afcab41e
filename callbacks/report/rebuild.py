"""Making a finished run's report.html again from its files: `report.of=RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.page import write_report

NEEDED = "config.yaml"
"""File that every run's folder has, of every version."""


def rebuild(run: str | Path) -> Path:
    """Write tables, figures and report.html of a run anew, of this version or an older one; nothing is computed.

    Args:
        run: folder of the run.

    Raises:
        UserError: it is no run's folder, or a file of the run is missing or damaged (named).
    """
    folder = Path(run)
    if not (folder / NEEDED).is_file():
        raise UserError(
            f"{folder} is no run's folder: it has no {NEEDED}; expected the folder that a run names in its last line, "
            "for example outputs/runs/2026-01-31_12-00-00_tiny_demo_s0: give that one."
        )
    return write_report(folder)


def report_command(config: Any) -> dict[str, float]:
    """Make a report anew if the configuration says so, which is then all that happens.

    Returns:
        How many were made; empty where the configuration asks for a run.

    Raises:
        UserError: see `rebuild`.
    """
    run = (config.get("report") or {}).get("of")
    if run is None:
        return {}
    print(f"report: {rebuild(run)}", flush=True)
    return {"report/made": 1.0}
