"""One job of a sweep as a run of its own process.

With several devices Lightning starts the command line again in every process. Inside a sweep that would replay the
whole sweep and could mix configurations, so each job becomes a single run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.callbacks.processes.parents import start_others
from twinlens.callbacks.processes.ranks import is_first_process

STATUSES = {0: "done", 2: "refused", 130: "interrupted", 143: "terminated"}
SECONDS_TO_END = 5.0
"""How long a job may take to end after a signal; less than this process may."""
UNDER_TORCHRUN = (
    "torchrun has started this sweep, whose jobs are runs of several processes; expected one run for each torchrun: "
    "leave -m out and start every job by itself, or let hydra/launcher=submitit_slurm start them."
)


def run_as_process(script: Path, hydra: Mapping[str, Any], overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a job and report its outcome as `twinlens.callbacks.run.run_outcome.outcome_of` would.

    Args:
        script: train.py.
        hydra: Hydra's node of the job, whose configuration folders and name are passed on.
        overrides: the job's overrides.
        folder: the job's run folder.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:  # its processes meet once: a second job would meet what the first left
        return {"status": "refused", "message": UNDER_TORCHRUN}
    # mode: an experiment file may ask for a sweep, of which this is one job
    single = ["hydra.mode=RUN", f"hydra.run.dir='{folder}'"]
    command = [sys.executable, str(script), *configuration_options(hydra), *overrides, *single]
    start_others()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            told = process.communicate()[1]
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_ended(process)) from None
    sys.stderr.write(told)
    status = STATUSES.get(process.returncode, "error")
    if status == "done":
        written = json.loads((folder / "metrics.json").read_text()) if is_first_process() else {}
        return {"status": status, "metrics": written}
    message = _last_line(told, status) or f"the process ended with code {process.returncode}"
    return {"status": status, "message": message}


def _ended(process: subprocess.Popen[str]) -> str:
    """End a job, and what it says of it."""
    process.terminate()
    try:
        told = process.communicate(timeout=SECONDS_TO_END)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return ""
    return _last_line(told, STATUSES.get(process.returncode, "error"))


def _last_line(told: str, status: str) -> str:
    lines = [line for line in told.splitlines() if line.strip()]
    return lines[-1].removeprefix(f"{status}: ") if lines else ""


def configuration_options(hydra: Mapping[str, Any]) -> list[str]:
    """The options of a command line that say which configuration is the primary one.

    Read from Hydra's node: in a launcher's process `sys.argv` is the launcher's.
    """
    folders = {source["provider"]: source["path"] for source in hydra["runtime"]["config_sources"]}
    options = ["--config-name", str(hydra["job"]["config_name"])]
    for provider, option in (("main", "--config-path"), ("command-line", "--config-dir")):
        if provider in folders:
            options += [option, str(folders[provider])]
    return options
