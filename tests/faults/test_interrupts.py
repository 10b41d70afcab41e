"""A run stopped from inside: Ctrl-C with a word on what is kept, and a fit without room; the same command goes on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.running import SMALL_DEMO, CommandLine, Finished, once, run_here
from twinlens.callbacks.passes import predict_pass
from twinlens.callbacks.run import pipeline
from twinlens.models.module import TextClassifier

ARGUMENTS = ("method=gradsim", "evaluation=accuracy")


def on_call(number: int, function: Callable[..., Any], happens: Callable[[], Any]) -> Callable[..., Any]:
    """`function`, before whose call of that number something happens."""
    calls = []

    def called(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            happens()
        return function(*arguments)

    return called


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def line_of(finished: Finished) -> str:
    """The one line of an interrupted command."""
    assert finished.code == 130, finished.err
    assert "Traceback" not in finished.out + finished.err
    (line,) = (line for line in finished.err.splitlines() if line.startswith("interrupted: "))
    assert "the same command goes on" in line
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return line


def interrupted(command: CommandLine, *arguments: str) -> str:
    """The one line of a command that is interrupted."""
    return line_of(command(*arguments, *ARGUMENTS))


EPOCHS = (*ARGUMENTS, "trainer.max_epochs=3")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a fit that Ctrl-C has ended in its third epoch."""

    def build(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(TextClassifier, "training_step", on_call(3, TextClassifier.training_step, ctrl_c))
            line = line_of(run_here(folder, *EPOCHS, *SMALL_DEMO))
        assert "in stage fit, of which the finished epochs are kept" in line

    return once(tmp_path_factory, "begun_fit", build) / "outputs" / "store"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same command's run without an interruption."""
    folder = once(tmp_path_factory, "undisturbed_fit", lambda folder: run_here(folder, *EPOCHS, *SMALL_DEMO))
    (run,) = (folder / "outputs" / "runs").iterdir()
    return run


def test_in_the_fit(command: CommandLine, begun: Path, undisturbed: Path) -> None:
    shutil.copytree(begun, command.folder / "outputs" / "store")
    again = command(*EPOCHS)
    assert again.code == 0, again.err
    assert "epoch 1/3" not in again.out
    assert "epoch 3/3" in again.out
    assert (undisturbed / "results.csv").read_text() == (again.folder / "results.csv").read_text()
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (again.folder, undisturbed)]
    assert weights[0] == weights[1]


def test_in_a_pass(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(predict_pass, "write_shard", on_call(6, predict_pass.write_shard, ctrl_c))
        assert "in stage examples, of which 5 finished shard(s) are kept" in interrupted(command)
    again = command(*ARGUMENTS)
    assert again.code == 0, again.err
    assert "fit: read from the store" in again.out
    assert "5 of 16 shards are there, going on" in again.out


def test_between_stages(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "write_report", on_call(1, pipeline.write_report, ctrl_c))
        assert "finished stages are kept" in interrupted(command)
    assert "gradsim: read from the store" in command(*ARGUMENTS).out


def test_in_a_sweep_ends_the_sweep(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(predict_pass, "write_shard", on_call(6, predict_pass.write_shard, ctrl_c))
        interrupted(command, "-m", "seed=0,1")
    again = command("-m", "seed=0,1", *ARGUMENTS)
    assert again.code == 0, again.err
    assert again.out.count("fit: read from the store") == 1


@pytest.mark.parametrize("damaged", ["last.ckpt", "best.ckpt"])
def test_a_truncated_checkpoint_does_not_block_the_fit(command: CommandLine, begun: Path, damaged: str) -> None:
    shutil.copytree(begun, command.folder / "outputs" / "store")
    (checkpoint,) = Path(command.folder).glob(f"outputs/store/fit/*.partial/checkpoints/{damaged}")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    again = command(*EPOCHS)
    assert again.code == 0, again.err
    assert f"{damaged} is truncated or altered: the fit starts over" in again.out
    assert "epoch 1/3" in again.out


def test_a_store_moved_between_two_attempts_keeps_the_best_epoch(
    command: CommandLine, begun: Path, undisturbed: Path
) -> None:
    shutil.copytree(begun, command.folder / "moved")
    again = command(*EPOCHS, "paths.store=moved")
    assert again.code == 0, again.err
    fits = [(run / "model").resolve().parent / "fit.json" for run in (again.folder, undisturbed)]
    assert fits[0].read_text() == fits[1].read_text()


def test_a_fit_that_needs_more_memory_than_there_is(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(TextClassifier, "training_step", on_call(2, TextClassifier.training_step, full))
    finished = command(*ARGUMENTS, "trainer.max_epochs=2")
    assert finished.code == 2
    assert "Traceback" not in finished.err
    assert "the fit ran out of memory with batches of 8 examples" in finished.err
    assert "lower model.batch_size" in finished.err
