"""One job of a sweep as a run of its own process.

With several devices Lightning starts the command line again in every process. Inside a sweep that would replay the
whole sweep and could mix configurations, so each job becomes a single run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OPTIONS_WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn")
STATUSES = {0: "done", 2: "refused", 130: "interrupted"}


def run_as_process(script: Path, arguments: Sequence[str], overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a job and report its outcome as `callbacks.outcome.outcome_of` would.

    Args:
        script: train.py.
        arguments: the sweep's own command line, whose configuration folder and name are passed on.
        overrides: the job's overrides.
        folder: the job's run folder.
    """
    # mode: an experiment file may ask for a sweep, of which this is one job
    single = ["hydra.mode=RUN", f"hydra.run.dir='{folder}'"]
    command = [sys.executable, str(script), *configuration_options(arguments), *overrides, *single]
    finished = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(finished.stderr)
    status = STATUSES.get(finished.returncode, "error")
    if status == "done":
        return {"status": status, "metrics": json.loads((folder / "metrics.json").read_text())}
    told = [line for line in finished.stderr.splitlines() if line.strip()]
    message = told[-1].removeprefix(f"{status}: ") if told else f"the process ended with code {finished.returncode}"
    return {"status": status, "message": message}


def configuration_options(arguments: Sequence[str]) -> list[str]:
    """The options of a command line that say which configuration is the primary one."""
    kept: list[str] = []
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in OPTIONS_WITH_VALUE:
            kept += [argument] if value else list(arguments[position : position + 2])
    return kept
