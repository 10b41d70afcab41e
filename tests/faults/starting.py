"""Starting, watching and stopping `python train.py` from outside, as a user's shell does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import REPOSITORY

SECONDS = 120.0
"""How long a test waits at most for what must happen; reaching it is a failure, never a measurement."""


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python train.py …` in `folder`, output in `<folder>/out` and `<folder>/err`, as the head of a process group."""
    with (folder / "out").open("a") as out, (folder / "err").open("a") as err:
        return subprocess.Popen(
            [sys.executable, "-u", str(REPOSITORY / "train.py"), *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something has happened while a process runs."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, f"the process ended with {process.returncode} before that"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def finished_shards(folder: Path, stage: str) -> int:
    """Finished shards of unfinished entries of a stage in the default store."""
    return len(list(folder.glob(f"outputs/store/{stage}/*.partial/shards/shard_*.safetensors")))
