"""Of several processes one dies: the others stop with a word, and the same command goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.faults.starting import finished_shards, start, wait_until

SLOW = (
    "debug=fdr",
    "data.limit.train=48",
    "data.limit.test=32",
    "method=ig",
    "method.ig.n_steps=40",
    "evaluation=accuracy",
    "trainer=ddp_cpu",
    "trainer.devices=2",
)


@pytest.mark.parametrize("dies", ["first", "second"])
def test_the_others_stop_within_a_minute_and_say_why(tmp_path: Path, dies: str) -> None:
    process = start(tmp_path, *SLOW)
    wait_until(lambda: finished_shards(tmp_path, "attribute") > 1, process)
    (second,) = psutil.Process(process.pid).children()
    os.kill(process.pid if dies == "first" else second.pid, signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    second.wait(timeout=60)
    told = (tmp_path / "err").read_text()
    assert ("the first process of the run" if dies == "first" else "code -9") in told
    kept = finished_shards(tmp_path, "attribute")
    assert kept > 1
    if dies == "second":
        return
    again = start(tmp_path, *SLOW)
    assert again.wait(timeout=120) == 0, (tmp_path / "err").read_text()
    assert f"ig on test: {kept} of 16 shards are there, going on" in (tmp_path / "out").read_text()


def test_sigterm_of_the_first_ends_all_with_one_word(tmp_path: Path) -> None:
    process = start(tmp_path, *SLOW)
    wait_until(lambda: finished_shards(tmp_path, "attribute") > 1, process)
    (second,) = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(timeout=30) == 143
    second.wait(timeout=30)
    (line,) = (tmp_path / "err").read_text().splitlines()[-1:]
    assert line.startswith("terminated: in stage attribute, of which")
    assert (tmp_path / "err").read_text().count("the same command goes on") == 1
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_ctrl_c_stops_all_of_them_with_one_word(tmp_path: Path) -> None:
    process = start(tmp_path, *SLOW)
    wait_until(lambda: finished_shards(tmp_path, "attribute") > 1, process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: all processes of the group get it
    assert process.wait(timeout=60) == 130
    told = [line for line in (tmp_path / "err").read_text().splitlines() if line.startswith("interrupted: ")]
    assert len(told) == 1
    assert "in stage attribute" in told[0]
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert finished_shards(tmp_path, "attribute") > 1
