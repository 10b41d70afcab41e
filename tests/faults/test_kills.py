"""Runs and sweeps ended by signals at random moments: no wrong result, nothing lost beyond a shard, no process left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.process import AT_MOST

STAGES = {"fit", "predict", "attribute", "evaluate", "report"}
IN_A_ROW = 8
"""Fewer commands have to run to their end than with shorter chains, and more often one goes on with what is there."""


def tally_of(folder: Path, repository: Path, kills: int, seed: int, *more: str) -> dict[str, Any]:
    """What came of so many kills, all of which the tally must find in order."""
    # a process of its own, which computes nothing itself: only such a one can fork runs
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.faults.run",
            f"--kills={kills}",
            f"--seed={seed}",
            f"--folder={folder / 'runs'}",
            *more,
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tally = json.loads(done.stdout[done.stdout.index("{") :])
    print(tally)
    assert tally["kills"] == sum(tally["signals"].values()) == kills
    assert tally["wrong"] == []
    assert tally["finished_redone"] == []
    assert tally["beyond_one_per_kill"] == 0
    assert tally["slowest_end"] <= AT_MOST
    return tally


def test_eight_kills_lose_nothing_and_mix_nothing(tmp_path: Path, repository: Path) -> None:
    tally = tally_of(tmp_path, repository, 8, 3, f"--in-a-row={IN_A_ROW}")
    assert set(tally["signals"]) == {"SIGKILL", "SIGTERM"}
    assert set(tally["stages"]) <= STAGES | {"start"}


@pytest.mark.long
def test_a_hundred_and_forty_kills_of_runs(tmp_path: Path, repository: Path) -> None:
    tally = tally_of(tmp_path, repository, 140, 11)
    # the moments are drawn, the stages they fall into depend on the machine: short ones may be missed
    assert len(STAGES & set(tally["stages"])) >= 3


@pytest.mark.long
def test_forty_kills_of_sweeps(tmp_path: Path, repository: Path) -> None:
    tally_of(tmp_path, repository, 40, 12, "--sweeps")
