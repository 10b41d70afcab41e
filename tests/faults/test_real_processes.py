"""Two hundred tries of each fuzzer as processes of their own: the same outcomes, with exit codes and streams."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

PROCESSES = 200


@pytest.mark.long
@pytest.mark.parametrize("kind", ["command_lines", "configurations", "data_files", "model_folders"])
def test_tries_as_processes(kind: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.faults.real_processes", kind, str(PROCESSES)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    counts = json.loads(finished.stdout.splitlines()[-1].split(maxsplit=2)[2])
    print(kind, counts)
    assert sum(counts.values()) == PROCESSES
    assert counts["served"] > 0
    assert counts["refused"] > PROCESSES / 20
