"""Of several processes one dies: the others stop with a word, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.faults.starting import finished_shards, start, wait_until
from tests.running import CommandLine
from twinlens.callbacks.passes import predict_pass

SLOW = (
    "debug=fdr",
    "data.limit.train=48",
    "data.limit.test=32",
    "method=ig",
    "method.ig.n_steps=40",
    "evaluation=accuracy",
)
TWO = ("trainer=ddp_cpu", "trainer.devices=2")


def wait_for_shards(folder: Path, process: subprocess.Popen[str], least: int = 2) -> psutil.Process:
    """Wait until so many shards are finished; the second process."""
    wait_until(lambda: finished_shards(folder, "attribute") >= least, process)
    (second,) = psutil.Process(process.pid).children()
    return second


def test_the_others_stop_with_a_word_when_the_first_is_killed(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    """In a run that goes on from stored shards."""
    arguments = (*SLOW, "fit=false", "model=local", f"model.path={trained / 'model'}")
    write, written = predict_pass.write_shard, []

    def interrupted(folder: Path, *arguments: object) -> None:
        if folder.parents[1].name == "attribute":
            written.append(folder)
        if len(written) > 2:
            raise KeyboardInterrupt
        write(folder, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(predict_pass, "write_shard", interrupted)
        assert command(*arguments, "trainer.accelerator=cpu", base=()).code == 130
    kept = finished_shards(command.folder, "attribute")
    process = start(command.folder, *arguments, *TWO)
    second = wait_for_shards(command.folder, process, kept + 1)
    process.kill()
    process.wait()
    second.wait(timeout=60)
    told = (command.folder / "err").read_text()
    assert told.splitlines()[-1].startswith(f"stopped: the first process of the run ({process.pid}) has ended")
    assert told.count("the same command goes on") == 1
    assert "Traceback" not in told
    assert f"ig on test: {kept} of 16 shards are there, going on" in (command.folder / "out").read_text()


@pytest.mark.long
def test_sigterm_of_the_first_ends_all_with_one_word(tmp_path: Path) -> None:
    process = start(tmp_path, *SLOW, *TWO)
    second = wait_for_shards(tmp_path, process)
    process.terminate()
    assert process.wait(timeout=30) == 143
    second.wait(timeout=30)
    told = (tmp_path / "err").read_text()
    assert told.splitlines()[-1].startswith("terminated: in stage attribute, of which")
    assert told.count("the same command goes on") == 1
    assert "Traceback" not in told


@pytest.mark.long
def test_when_another_dies_the_first_stops_and_says_why(tmp_path: Path) -> None:
    process = start(tmp_path, *SLOW, *TWO)
    second = wait_for_shards(tmp_path, process)
    second.kill()
    assert process.wait(timeout=60) != 0
    assert "code -9" in (tmp_path / "err").read_text()
    assert finished_shards(tmp_path, "attribute") > 1


@pytest.mark.long
def test_ctrl_c_stops_all_of_them_with_one_word(tmp_path: Path) -> None:
    process = start(tmp_path, *SLOW, *TWO)
    wait_until(lambda: finished_shards(tmp_path, "attribute") > 1, process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: all processes of the group get it
    assert process.wait(timeout=60) == 130
    told = [line for line in (tmp_path / "err").read_text().splitlines() if line.startswith("interrupted: ")]
    assert len(told) == 1
    assert "in stage attribute" in told[0]
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert finished_shards(tmp_path, "attribute") > 1
