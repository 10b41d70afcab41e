"""What became of a run: failures as values, so that a sweep goes on, and the exit code they add up to."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attribution.base import UserError
from callbacks.files import is_first_process
from conf.dump import scrub

EXIT_CODES = {"error": 1, "interrupted": 130, "refused": 2, "done": 0}
"""Status → exit code; the first that occurs in this order decides."""


def outcome_of(work: Callable[[], Any], folder: Path | None = None) -> dict[str, Any]:
    """Run `work`: its metrics, or the one sentence that says what the user can mend, or a defect.

    Args:
        work: the whole run, or the check of a command line.
        folder: the run's folder, removed again if the run left nothing in it.
    """
    outcome: dict[str, Any]
    try:
        outcome = {"status": "done", "metrics": work()}
    except UserError as error:
        outcome = {"status": "refused", "message": scrub(str(error))}
    except KeyboardInterrupt:
        if folder is not None:
            raise  # one job of perhaps many: the whole command line ends
        outcome = {"status": "interrupted", "message": "finished stages and shards are kept; the same command goes on"}
    except Exception as error:  # a defect: its traceback is shown, a sweep's other jobs still run
        traceback.print_exc()
        outcome = {"status": "error", "message": scrub(f"{type(error).__name__}: {error}")}
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return outcome


def exit_code(outcomes: list[dict[str, Any]]) -> int:
    """Print what went wrong to stderr; 0 for success, 2 for what the user can mend, 130 interrupted, 1 a defect."""
    for outcome in outcomes:
        if "message" in outcome and is_first_process():
            print(f"{outcome['status']}: {outcome['message']}", file=sys.stderr)
    statuses = {outcome["status"] for outcome in outcomes}
    return next((code for status, code in EXIT_CODES.items() if status in statuses), 0)
