"""Storage that fails: one sentence, exit code 2, and what was finished is kept."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.lock_files import lock_of
from tests.running import CommandLine, Finished
from twinlens.callbacks.passes import predict_pass
from twinlens.callbacks.store import files

ARGUMENTS = ("method=gradsim", "evaluation=accuracy")


def sentence(finished: Finished) -> str:
    """The one sentence of a refused command."""
    assert finished.code == 2, finished.out + finished.err
    assert "Traceback" not in finished.out + finished.err
    (line,) = (line for line in finished.err.splitlines() if line.startswith("refused: "))
    return line


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, small enough to be filled; skips where none may be mounted."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("needs mount")
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that leaves `leave` bytes free."""
    filler = folder / "filler"
    with filler.open("wb") as opened:
        opened.write(b"\0" * (shutil.disk_usage(folder).free - leave))
    return filler


@pytest.mark.parametrize("megabytes", [0.5, pytest.param(2, marks=pytest.mark.long), 6])
def test_a_full_disk_under_the_store(command: CommandLine, mounted: Path, megabytes: float) -> None:
    filler = fill(mounted, int(megabytes * 2**20))
    store = f"paths.store={mounted / 'store'}"
    told = sentence(command(*ARGUMENTS, store))
    assert "No space left on device" in told
    assert "paths.store=DIR" in told
    filler.unlink()
    assert command(*ARGUMENTS, store).code == 0


def test_a_full_disk_under_the_run_folder(command: CommandLine, mounted: Path) -> None:
    assert command(*ARGUMENTS).code == 0
    fill(mounted, 8192)
    told = sentence(command(*ARGUMENTS, f"hydra.run.dir={mounted / 'run'}"))
    assert "No space left on device" in told
    assert "hydra.run.dir=DIR" in told


FAILURES = {
    errno.ENOSPC: "room for the results",
    errno.EDQUOT: "room for the results",
    errno.EACCES: "writable folder",
    errno.EROFS: "writable folder",
}


def test_a_shard_that_cannot_be_written(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = predict_pass.write_shard, []

    def fails_after(folder: Path, *arguments: object) -> None:
        if len(written) == 2:
            raise OSError(number, os.strerror(number), str(folder))
        written.append(folder)
        write(folder, *arguments)  # type: ignore[arg-type]

    for number, expected in FAILURES.items():
        with monkeypatch.context() as patched:
            patched.setattr(predict_pass, "write_shard", fails_after)
            told = sentence(command(*ARGUMENTS))
        assert expected in told
        assert os.strerror(number) in told
    again = command(*ARGUMENTS)
    assert again.code == 0
    assert "fit: read from the store" in again.out
    assert "2 of 16 shards are there" in again.out


def test_an_output_folder_that_vanishes(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    write = predict_pass.write_shard

    def vanishes(folder: Path, *arguments: object) -> None:
        shutil.rmtree(command.folder / "outputs")
        write(folder, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(predict_pass, "write_shard", vanishes)
        told = sentence(command(*ARGUMENTS))
    assert "has vanished" in told
    assert "outputs" in told
    assert command(*ARGUMENTS).code == 0


def test_a_run_folder_that_vanishes(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from twinlens.callbacks.run import folder as run_folder

    def vanishes(path: Path, rows: object) -> None:
        shutil.rmtree(path.parent)
        files.write_text(path, "")

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_results", vanishes)
        told = sentence(command(*ARGUMENTS, "hydra.run.dir=here"))
    assert "here has vanished" in told
    again = command(*ARGUMENTS, "hydra.run.dir=here")
    assert again.code == 0
    assert "gradsim: read from the store" in again.out


def test_a_store_that_can_only_be_read(command: CommandLine, mounted: Path) -> None:
    store = f"paths.store={mounted / 'store'}"
    assert command(*ARGUMENTS, store).code == 0
    (mounted / "store" / "weights.json").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    again = command(*ARGUMENTS, store)
    assert again.code == 0, again.err
    assert "gradsim: read from the store" in again.out
    told = sentence(command("method=influence", "evaluation=accuracy", store))
    assert "Read-only file system" in told
    assert "paths.store=DIR" in told


@pytest.mark.parametrize("exists", [True, False])
def test_a_run_folder_that_may_not_be_written(command: CommandLine, mounted: Path, exists: bool) -> None:
    if exists:
        (mounted / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    told = sentence(command(*ARGUMENTS, f"hydra.run.dir={mounted / 'run'}"))
    assert "Read-only file system" in told
    assert "hydra.run.dir=DIR" in told


def test_a_run_folder_in_use_is_refused_by_name_and_a_dead_owners_taken_over(command: CommandLine) -> None:
    folder = command.folder / "here"
    folder.mkdir()
    other = subprocess.Popen(["sleep", "600"])
    lock_of(folder / ".run.lock", other.pid)
    told = sentence(command(*ARGUMENTS, "hydra.run.dir=here"))
    assert "here is in use by another run" in told
    assert str(other.pid) in told
    assert sorted(path.name for path in folder.iterdir()) == [".run.lock"]
    other.kill()
    other.wait()
    assert command(*ARGUMENTS, "hydra.run.dir=here").code == 0
    assert not (folder / ".run.lock").exists()
