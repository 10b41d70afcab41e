"""Steps of `bash benchmarks/on_gpu.sh`: what only a GPU shows, each in a process of its own under a limit of its own.

A step that fails or takes too long is noted with its error, and the next one runs. The record is one JSON file; the
exit code is 1 where a step has failed. On a machine without a CUDA device nothing is run; `--device cpu --smoke` runs
all steps at tiny sizes there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_steps import STEPS
from benchmarks.record import environment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
AT_MOST = 480
"""Seconds of all steps together."""


@dataclass(frozen=True)
class Ended:
    """How a step ended.

    Attributes:
        seconds: that it took, with its imports.
        found: its figures; None: it failed.
        error: the end of what it said then.
    """

    seconds: float
    found: dict[str, Any] | None
    error: str | None = None


def run_step(name: str, device: str, smoke: bool, limit: float | None) -> Ended:
    """One step in a process of its own, which is ended with all that it has started once its time is over."""
    command = [sys.executable, "-m", "benchmarks.on_gpu", "--step", name, "--device", device]
    command += ["--smoke"] if smoke else []
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Ended(time.monotonic() - start, None, f"took more than its {limit:g} s")
    seconds = time.monotonic() - start
    if process.returncode:
        return Ended(seconds, None, (err or out).strip()[-2000:] or f"exit code {process.returncode}")
    return Ended(seconds, json.loads(out.strip().splitlines()[-1]))


def run_all(names: Sequence[str], device: str, smoke: bool) -> dict[str, Ended]:
    """All steps, one after the other; one that would begin after the last second is noted as left out. At tiny sizes,
    which say nothing of a GPU, a slow machine may take its time."""
    began, ended = time.monotonic(), {}
    for name in names:
        left = math.inf if smoke else AT_MOST - (time.monotonic() - began)
        if left < 1:
            ended[name] = Ended(0.0, None, f"left out: the steps before took all of the {AT_MOST} s")
            continue
        print(f"{name}: {STEPS[name].what}", flush=True)
        ended[name] = run_step(name, device, smoke, None if smoke else min(STEPS[name].limit, left))
        done = ended[name]
        said = json.dumps(done.found) if done.error is None else f"failed: {done.error.splitlines()[-1]}"
        print(f"  {done.seconds:.0f} s: {said}", flush=True)
    return ended


def device_told(device: str) -> str:
    """Name and memory of the device."""
    if device != "cuda":
        return device
    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB"


def would_do() -> str:
    """What is said where there is no GPU."""
    steps = [f"  {name} (at most {step.limit} s): {step.what}" for name, step in STEPS.items()]
    return "\n".join(
        [f"no CUDA device here, so that nothing was run; with one, in at most {AT_MOST // 60} minutes:", *steps,
         "and one JSON in benchmarks/results"]
    )  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bash benchmarks/on_gpu.sh", description="What only a GPU shows.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that every step runs")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--folder", type=Path, default=RESULTS, help="of the JSON")
    parser.add_argument("--step", choices=list(STEPS), default=None, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> int:
    """0 where every step ended well or there is no GPU, 1 where one failed."""
    arguments = parse(sys.argv[1:] if given is None else given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(would_do())
        return 0
    if arguments.step:
        print(json.dumps(STEPS[arguments.step].run(torch.device(arguments.device), arguments.smoke)), flush=True)
        return 0
    ended = run_all(arguments.steps, arguments.device, arguments.smoke)
    record = {
        "date": date.today().isoformat(),
        "device": device_told(arguments.device),
        "smoke": arguments.smoke,
        "machine": environment(),
        "steps": {name: vars(step) for name, step in ended.items()},
    }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / f"{record['date']}-{arguments.device}-steps.json"
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    failed = [name for name, step in ended.items() if step.error is not None]
    print(
        f"{file}: {len(ended) - len(failed)} of {len(ended)} steps ended well" + (f", not {failed}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
