"""Processes that torchrun or srun starts: the scores of one, an end together, and no run beside its settings."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.running import SMALL_DEMO, CommandLine, once, run_here

SECONDS = 240.0
"""A run that takes longer hangs."""
TWO_NODES = ("trainer=ddp_cpu", "trainer.num_nodes=2", "trainer.devices=1")
ONE_NODE = ("trainer=ddp_cpu", "trainer.devices=2")
SCORES = {"ig": "score", "gradsim": "top_score"}


def environment(**more: str) -> dict[str, str]:
    """The environment of a process, without what a cluster that runs the tests has said to them."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


@contextmanager
def started(
    folder: Path, commands: Sequence[tuple[list[str], dict[str, str]]]
) -> Iterator[list[subprocess.Popen[str]]]:
    """Commands at the same time, output in `<folder>/out<n>` and `err<n>`; whatever is left of them ends at the end."""
    processes = []
    for number, (command, given) in enumerate(commands):
        with (folder / f"out{number}").open("w") as out, (folder / f"err{number}").open("w") as err:
            processes.append(
                subprocess.Popen(
                    command, cwd=folder, env=given, stdout=out, stderr=err, text=True, start_new_session=True
                )
            )
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def codes(processes: Sequence[subprocess.Popen[str]], seconds: float = SECONDS) -> list[int]:
    """Exit codes of all, which must end in that time together."""
    until = time.monotonic() + seconds
    return [process.wait(timeout=max(1.0, until - time.monotonic())) for process in processes]


def said(folder: Path, beginning: str) -> list[str]:
    """Lines on standard error of all commands that begin so."""
    lines = [line for file in sorted(folder.glob("err[0-9]")) for line in file.read_text().splitlines()]
    return [line for line in lines if line.startswith(beginning)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(repository: Path, *arguments: str, nodes: int = 1, on_each: int = 2) -> list[tuple[list[str], dict]]:
    """One agent of torchrun for each node, all of them on this machine."""
    port, run = free_port(), uuid.uuid4().hex
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-id={run}"]
    options = [f"--nnodes={nodes}", f"--nproc-per-node={on_each}", "--local-addr=127.0.0.1", *meeting]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(repository / "train.py"), *arguments]
    return [(command, environment())] * nodes


def srun(
    repository: Path, *arguments: str, per_rank: Sequence[tuple[str, ...]] = ((), ())
) -> list[tuple[list[str], dict]]:
    """What `srun --nodes=2 --ntasks-per-node=1` starts, told from its environment alone; `per_rank`: more arguments."""
    shared = {
        "SLURM_JOB_ID": str(uuid.uuid4().int % 10**8),
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NAME": "twinlens",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_LOCALID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return [
        (
            [sys.executable, str(repository / "train.py"), *arguments, *per_rank[rank]],
            environment(**shared, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank)),
        )
        for rank in range(2)
    ]


STARTERS = {"torchrun": lambda *given: torchrun(*given, nodes=2, on_each=1), "srun": srun}


def judging(model: Path) -> tuple[str, ...]:
    """Scores of a classifier as it is."""
    given = ("fit=false", "model=local", f"model.path={model}", f"method=[{','.join(SCORES)}]", "evaluation=accuracy")
    return (*given, *SMALL_DEMO[1:-1])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """One process's run."""

    def build(folder: Path) -> None:
        arguments = (*judging(trained / "model"), "trainer.accelerator=cpu", "hydra.run.dir=run")
        finished = run_here(folder, *arguments)
        assert finished.code == 0, finished.err

    return once(tmp_path_factory, "scores_of_one_process", build) / "run"


@pytest.mark.long
@pytest.mark.parametrize("starter", STARTERS)
def test_two_nodes_give_the_scores_of_one_process(
    repository: Path, tmp_path: Path, trained: Path, one: Path, starter: str
) -> None:
    arguments = judging(trained / "model")
    commands = STARTERS[starter](repository, *arguments, *TWO_NODES, "paths.store=two", "hydra.run.dir=run_two")
    with started(tmp_path, commands) as processes:
        assert codes(processes) == [0] * len(commands), "".join(file.read_text() for file in tmp_path.glob("err[0-9]"))
    printed = "".join(file.read_text() for file in tmp_path.glob("out[0-9]"))
    for name, column in SCORES.items():
        assert printed.count(f"{name}: computed") == 1
        expected, found = (
            datasets.load_from_disk(str(run / "scores" / name / "test")).with_format("numpy")
            for run in (one, tmp_path / "run_two")
        )
        assert np.array_equal(expected["index"][:], found["index"][:])
        wanted, got = (np.concatenate(list(table[column][:])) for table in (expected, found))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7 + 1e-6 * np.abs(wanted).max(), err_msg=name)
    results = [(run / "results.csv").read_text() for run in (one, tmp_path / "run_two")]
    assert results[0] == results[1]
    assert list((tmp_path / "two" / ".processes").iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("starter", STARTERS)
def test_what_all_of_them_meet_is_said_once(repository: Path, tmp_path: Path, starter: str) -> None:
    arguments = ("data=table", "data.path=absent.jsonl", "method=gradsim", "evaluation=accuracy", *TWO_NODES)
    with started(tmp_path, STARTERS[starter](repository, *arguments)) as processes:
        ended = codes(processes, 90.0)
    assert ended == ([2, 2] if starter == "srun" else [1, 1])  # torchrun has a code of its own
    assert len(said(tmp_path, "refused: ")) == 1
    assert "absent.jsonl" in said(tmp_path, "refused: ")[0]
    assert said(tmp_path, "stopped: ") == []


@pytest.mark.long
@pytest.mark.parametrize("fails", [0, 1])
def test_what_one_of_them_meets_ends_the_other_as_well(repository: Path, tmp_path: Path, fails: int) -> None:
    alone: list[tuple[str, ...]] = [(), ()]
    alone[fails] = ("data.limit.train=0",)  # the other goes on to the fit and waits there
    small = tuple(argument for argument in SMALL_DEMO[1:-1] if "limit.train" not in argument)
    commands = srun(repository, "method=gradsim", "evaluation=accuracy", *small, *TWO_NODES, per_rank=alone)
    with started(tmp_path, commands) as processes:
        assert codes(processes, 90.0) == [2, 2], "".join(file.read_text() for file in tmp_path.glob("err[0-9]"))
    assert len(said(tmp_path, "refused: ")) == 1
    assert said(tmp_path, "stopped: ") == []
    assert not any("Traceback" in file.read_text() for file in tmp_path.glob("err[0-9]"))


@pytest.mark.long
def test_other_processes_than_the_settings_speak_of_are_refused_by_all_with_one_sentence(
    repository: Path, tmp_path: Path
) -> None:
    commands = torchrun(repository, "method=gradsim", *SMALL_DEMO, "trainer.devices=1", nodes=1, on_each=2)
    with started(tmp_path, commands) as processes:
        assert codes(processes, 90.0) == [1]
    assert len(said(tmp_path, "refused: ")) == 1
    assert "trainer.num_nodes=1 trainer.devices=2" in said(tmp_path, "refused: ")[0]
    assert not (tmp_path / "outputs" / "store").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_each_of_other_processes_than_the_settings_speak_of_refuses(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Told as torchrun tells them; the other one is not there."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**told, "TORCHELASTIC_RUN_ID": uuid.uuid4().hex}.items():
        monkeypatch.setenv(name, str(value))
    finished = command("method=gradsim", "trainer.devices=1")
    assert finished.code == 2
    assert "trainer.num_nodes=1 trainer.devices=2" in finished.err
    assert not (command.folder / "outputs" / "store").exists()


def test_a_sweep_of_several_processes_under_torchrun_is_refused(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    finished = command("-m", "seed=0,1", "method=gradsim", *ONE_NODE)
    assert finished.code == 2
    assert "start every job by itself" in finished.err
