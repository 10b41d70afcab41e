"""Others that a run depends on or shares with: a second sweep on the same store, locks of the dead, a silent server."""

from __future__ import annotations

import csv
import json
import os
import socket
from pathlib import Path

import psutil
import pytest

from tests.faults.lock_files import dead_lock, living_lock
from tests.faults.starting import SECONDS, start
from tests.running import SMALL_DEMO, CommandLine
from twinlens.callbacks.store.lock import Lock
from twinlens.callbacks.store.store import Store


@pytest.mark.long
def test_two_sweeps_started_together_fine_tune_each_model_once(tmp_path: Path) -> None:
    arguments = ("-m", *SMALL_DEMO, "method=gradsim", "evaluation=accuracy", "seed=0,1")
    sweeps = [start(tmp_path, *arguments) for _ in range(2)]
    assert [sweep.wait(timeout=2 * SECONDS) for sweep in sweeps] == [0, 0], (tmp_path / "err").read_text()
    told = (tmp_path / "out").read_text()
    assert told.count("fit: computed") == 2
    assert told.count("fit: read from the store") == 2
    folders = list((tmp_path / "outputs" / "sweeps").iterdir())
    assert len(folders) == 2
    results = set()
    for folder in folders:
        assert [row["status"] for row in csv.DictReader((folder / "sweep.csv").open())] == ["done", "done"]
        results.add((folder / "0" / "results.csv").read_text())
    assert len(results) == 1
    assert not list((tmp_path / "outputs").rglob("*.partial"))


def test_weights_and_biases_out_of_reach(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setattr("twinlens.callbacks.tracking.wandb_logger.SECONDS_TO_REACH", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(command.folder))
    finished = command("logger=wandb", "method=gradsim", "evaluation=accuracy")
    assert finished.code == 0, finished.err
    assert "wandb: cannot be reached" in finished.out
    assert "the run goes on" in finished.out
    assert list((finished.folder / "wandb").glob("offline-run-*/*.wandb"))
    assert "a" * 40 not in finished.out + finished.err


def test_an_entry_whose_overwriting_was_killed_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(text: str):
        return lambda folder: (folder / "value").write_text(text)

    entry = Store(tmp_path).get("fit", {}, build("old"))
    rename = Path.rename

    def killed(path: Path, target: Path) -> None:
        if path.suffix == ".partial":
            raise SystemExit("killed")
        rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(SystemExit):
            Store(tmp_path, overwrite=True).get("fit", {}, build("new"))
    again = Store(tmp_path).get("fit", {}, build("new"))
    assert (again.path / "value").read_text() == "new"
    assert sorted(path.name for path in entry.path.parent.iterdir()) == [entry.path.name]


def test_a_lock_left_beside_a_finished_entry_is_removed(tmp_path: Path) -> None:
    entry = Store(tmp_path).get("fit", {}, lambda folder: None)
    lock = dead_lock(entry.path.with_suffix(".lock"))
    entry.path.with_suffix(".replaced").mkdir()
    assert Store(tmp_path).get("fit", {}, lambda folder: None).reused
    left = {path.name for path in entry.path.parent.iterdir()} - {".takeover"}
    assert left == {entry.path.name}
    living_lock(lock)
    assert Store(tmp_path).get("fit", {}, lambda folder: None).reused
    assert lock.is_file()


def test_a_remembered_hash_that_was_damaged_is_taken_anew(command: CommandLine) -> None:
    first = command("method=gradsim", "evaluation=accuracy")
    cache = command.folder / "outputs" / "store" / "weights.json"
    cache.write_text(cache.read_text()[:20])
    again = command("method=gradsim", "evaluation=accuracy")
    assert again.code == 0, again.err
    assert "gradsim: read from the store" in again.out
    assert (first.folder / "results.csv").read_text() == (again.folder / "results.csv").read_text()
    json.loads(cache.read_text())


def test_a_lock_names_its_living_owner(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "entry.lock", until=lambda: True)
    with lock as owner:
        assert owner
        holder = lock.holder()
        assert holder is not None
        assert holder["pid"] == os.getpid()
        assert holder["started"] == psutil.Process().create_time()
    assert lock.holder() is None
    assert list(tmp_path.iterdir()) == []
