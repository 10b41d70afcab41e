"""Time to the answer of a misspelt command line, beside `python -c 'import hydra'`: both as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.pairs import Timed, timed

ROOT = Path(__file__).resolve().parents[1]


def answer() -> Timed[int]:
    """`python train.py` with a method's argument misspelt; its exit code."""
    return _run([str(ROOT / "train.py"), "method.ig.n_stepz=4"])


def hydra() -> Timed[int]:
    """The library alone, which composes configurations; its exit code."""
    return _run(["-c", "import hydra; raise SystemExit(2)"])


def _run(arguments: list[str]) -> Timed[int]:
    command = [sys.executable, *arguments]
    return timed(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode)
