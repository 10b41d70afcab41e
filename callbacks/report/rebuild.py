"""Making a finished run's report.html again from its files: `python -m twinlens.callbacks.report.rebuild RUN`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

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


def main(arguments: Sequence[str]) -> int:
    """0 where every report was written, 2 for what the user can mend."""
    if not arguments:
        print("python -m twinlens.callbacks.report.rebuild RUN [RUN …]: no run was given", file=sys.stderr)
        return 2
    for run in arguments:
        try:
            print(f"report: {rebuild(run)}")
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
