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

from twinlens.callbacks.processes.ranks import is_first_process

STATUSES = {0: "done", 2: "refused", 130: "interrupted"}
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
    finished = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(finished.stderr)
    status = STATUSES.get(finished.returncode, "error")
    if status == "done":
        written = json.loads((folder / "metrics.json").read_text()) if is_first_process() else {}
        return {"status": status, "metrics": written}
    told = [line for line in finished.stderr.splitlines() if line.strip()]
    message = told[-1].removeprefix(f"{status}: ") if told else f"the process ended with code {finished.returncode}"
    return {"status": status, "message": message}


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
