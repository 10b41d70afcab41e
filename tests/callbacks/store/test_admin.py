"""Listing and clearing the store: everything is shown, nothing is removed that a run holds or reads."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.lock_files import dead_lock, foreign_lock, living_lock
from tests.running import CommandLine
from twinlens.attribution.errors import UserError
from twinlens.callbacks.store import store as store_module
from twinlens.callbacks.store.admin import entries, format_entries, prune, size_text
from twinlens.callbacks.store.manifest import damage_of, note_use
from twinlens.callbacks.store.running import FOLDER, SILENT_SECONDS, running, running_since
from twinlens.callbacks.store.store import Store

DAY = 86_400


def builder(size: int) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"x" * size)

    return build


def fails(folder: Path) -> None:
    (folder / "shard").write_bytes(b"x" * 10)
    raise RuntimeError("killed")


def stored(root: Path, stage: str, seed: int, size: int = 1000, days: float = 0) -> Path:
    """A finished entry, last used `days` ago."""
    path = Store(root).get(stage, {"seed": seed}, builder(size), {"model": "tiny", "seed": seed}).path
    for name in ("manifest.json", "used"):
        (path / name).touch()
        os.utime(path / name, (time.time() - days * DAY,) * 2)
    return path


def begun(root: Path, stage: str, seed: int) -> Path:
    """What a run left that was killed in the middle."""
    with pytest.raises(RuntimeError, match="killed"):
        Store(root).get(stage, {"seed": seed}, fails)
    return next(path for path in (root / stage).glob("*.partial"))


def hold(entry: Path) -> Path:
    """A lock on the entry whose owner is this very process."""
    lock = living_lock(entry.with_suffix(".lock"))
    with lock.open("a") as opened:
        opened.write(f"started={psutil.Process().create_time()!r}\n")
    return lock


def test_every_entry_is_shown_with_size_ages_labels_and_totals(tmp_path: Path) -> None:
    root = tmp_path / "store"
    first = stored(root, "fit", 0, 2_000_000, days=3)
    stored(root, "examples", 1)
    stored(root, "examples", 2)
    text = format_entries(root, entries(root))
    line = next(line for line in text.splitlines() if first.name[:12] in line)
    assert {"fit", "2.0", "MB", "3d", "model=tiny", "seed=0"} <= set(line.split())
    assert "fit: 1 entry, 2.0 MB" in text
    assert "examples: 2 entries" in text
    assert text.index("fit ") < text.index("examples ")
    assert format_entries(root / "none", entries(root / "none")).endswith("nothing is stored")


def test_the_age_is_that_of_the_last_use(tmp_path: Path) -> None:
    path = stored(tmp_path, "fit", 0, days=30)
    before = entries(tmp_path)[0].used
    assert Store(tmp_path).get("fit", {"seed": 0}, builder(1)).reused
    assert entries(tmp_path)[0].used > before
    prune(tmp_path, ["7d"], tmp_path, True)
    assert path.is_dir()


def test_partial_and_locked_entries_are_told_with_their_owner(tmp_path: Path) -> None:
    begun(tmp_path, "attribute", 0)
    assert "partial" in format_entries(tmp_path, entries(tmp_path))
    hold(begun(tmp_path, "attribute", 0))
    assert f"process {os.getpid()} on {socket.gethostname()}" in format_entries(tmp_path, entries(tmp_path))


def test_prune_by_age_kind_and_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = stored(tmp_path, "fit", 0, days=8), stored(tmp_path, "fit", 1, days=6)
    partial = begun(tmp_path, "attribute", 2)
    prune(tmp_path, ["7d"], tmp_path, True)
    assert (old.exists(), new.exists(), partial.exists()) == (False, True, True)
    prune(tmp_path, ["partial"], tmp_path, True)
    assert (new.exists(), partial.exists()) == (True, False)
    prune(tmp_path, [new.name[:8]], tmp_path, True)
    assert not new.exists()
    assert "1 entry of 1 removed" in capsys.readouterr().out
    assert list(tmp_path.glob("*/*")) == []


@pytest.mark.parametrize("wrong", ["yesterday", "7y", "abc", "deadbeef", "../../etc"])
def test_what_names_nothing_is_refused(tmp_path: Path, wrong: str) -> None:
    kept = stored(tmp_path, "fit", 0)
    with pytest.raises(UserError, match=r"store\.list=true"):
        prune(tmp_path, [wrong, "all"], tmp_path, True)
    assert kept.exists()


def test_what_a_living_run_writes_or_reads_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read, forgotten = stored(tmp_path, "fit", 0), stored(tmp_path, "fit", 1, days=3650)
    written = begun(tmp_path, "attribute", 2)
    lock = hold(written)
    prune(tmp_path, ["all"], tmp_path, True)
    assert (read.exists(), written.exists(), forgotten.exists()) == (True, True, False)
    told = capsys.readouterr().out
    assert f"being written by process {os.getpid()}" in told
    assert "start of a run that is not finished" in told
    dead_lock(lock)
    prune(tmp_path, ["all"], tmp_path, True)
    left = {path.name for path in tmp_path.glob("*/*")} - {".takeover"}  # an empty file that guards take-overs of locks
    assert left == set()


def test_without_yes_everything_is_shown_and_nothing_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = stored(tmp_path, "fit", 0, 2_000_000, days=8), stored(tmp_path, "fit", 1, days=6)
    held = begun(tmp_path, "attribute", 2)
    lock = hold(held)
    before = sorted(tmp_path.rglob("*"))
    prune(tmp_path, ["7d", held.name[:8]], tmp_path, False)
    told = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert old.name[:12] in told
    assert new.name[:12] not in told
    assert f"being written by process {os.getpid()}" in told
    assert "2.0 MB in 1 entry of 3 would go" in told
    assert told.splitlines()[-1].startswith("nothing is removed yet")
    lock.unlink()


def test_what_a_run_between_two_stages_may_read_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, forgotten = tmp_path / "store", stored(tmp_path / "store", "fit", 1, days=3650)
    with running(store):
        read = stored(store, "fit", 0)
        prune(store, ["all"], tmp_path, True)
        assert (read.exists(), forgotten.exists()) == (True, False)
    assert "start of a run that is not finished" in capsys.readouterr().out
    prune(store, ["all"], tmp_path, True)
    assert not read.exists()
    assert list((store / FOLDER).iterdir()) == []


def test_signs_of_runs_that_have_ended_protect_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    dead, foreign = dead_lock(tmp_path / FOLDER / "a.lock"), foreign_lock(tmp_path / FOLDER / "b.lock")
    assert running_since(tmp_path) == 0.0  # of the other machine nobody knows when its run began
    assert (dead.exists(), foreign.exists()) == (False, True)
    os.utime(foreign, (time.time() - 2 * SILENT_SECONDS,) * 2)
    assert running_since(tmp_path) is None
    assert not foreign.exists()


def test_an_entry_that_is_read_in_that_moment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, "fit", 0, days=8)
    rename = Path.rename

    def read_meanwhile(folder: Path, target: Path) -> Path:
        if folder == path:
            note_use(folder)
        return rename(folder, target)

    monkeypatch.setattr(Path, "rename", read_meanwhile)
    prune(tmp_path, ["7d"], tmp_path, True)
    assert damage_of(path) == ""


def test_an_entry_that_goes_while_it_is_looked_at_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, "fit", 0)
    monkeypatch.setattr(store_module, "note_use", shutil.rmtree)
    entry = Store(tmp_path).get("fit", {"seed": 0}, builder(10))
    assert (entry.path, entry.reused, damage_of(path)) == (path, False, "")


def test_nothing_but_entries_is_touched(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    root = tmp_path / "store"
    stored(root, "fit", 0)
    (root / "fit" / ("a" * 24)).symlink_to(outside)
    (root / "fit" / "notes").mkdir()
    (root / "weights.json").write_text("{}")
    prune(root, ["all"], tmp_path, True)
    assert (outside / "precious").is_file()
    assert sorted(path.name for path in root.rglob("*")) == ["a" * 24, "fit", "notes", "weights.json"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file.unlink(), "weights.bin is missing"),
        (lambda file: file.write_bytes(b"x" * 10), "weights.bin has 10 bytes instead of 1000"),
        (lambda file: file.write_bytes(b"y" * 1000), "the content of weights.bin has changed"),
        (lambda file: (file.parent / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_entry_is_named_and_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], told: str
) -> None:
    path = stored(tmp_path, "fit", 0, days=1)
    assert damage_of(path) == ""
    damage(path / "weights.bin")
    assert not Store(tmp_path).get("fit", {"seed": 0}, builder(1)).reused
    assert f"{path} is damaged ({told})" in capsys.readouterr().out
    assert Store(tmp_path).get("fit", {"seed": 0}, builder(1)).reused
    assert damage_of(path) == ""


def test_a_store_that_may_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path, "fit", 0)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "touch", refuse)
    assert Store(tmp_path).get("fit", {"seed": 0}, builder(1)).reused


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_600, "1.0 MB"), (123_400_000, "123 MB")]
)
def test_sizes_are_shown_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


def test_the_command_line_lists_and_prunes_and_runs_nothing(command: CommandLine) -> None:
    run = command("method=gradsim", "evaluation=accuracy").folder
    runs = sorted(run.parent.iterdir())
    listed = command("store.list=true", base=())
    assert listed.code == 0
    for part in ("model=tiny", "data=demo", "method=gradsim", "split=train", "fit: 1 entry"):
        assert part in listed.out
    shown = command("store.prune=all", base=())
    assert shown.code == 0
    assert f"1 run folder in outputs link to them and would lack files: {run.name}" in shown.out
    assert shown.out.splitlines()[-1] == "nothing is removed yet: the same command with yes=true removes this"
    pruned = command("store.prune=all", "store.list=true", "yes=true", base=())
    assert pruned.code == 0
    assert "outputs/store: nothing is stored" in pruned.out
    assert f"1 run folder in outputs linked to them, so that files are missing there now: {run.name}" in pruned.out
    assert sorted(run.parent.iterdir()) == runs
    assert "fit: computed" in command("method=gradsim", "evaluation=accuracy").out


def test_a_file_cannot_clear_the_store(command: CommandLine) -> None:
    kept = stored(command.folder / "outputs" / "store", "fit", 0)
    run = command.folder / "stranger"
    run.mkdir()
    (run / "config.yaml").write_text("defaults: [train, _self_]\nstore: {prune: all}\n")
    finished = command("--config-dir", str(run), "--config-name", "config", base=())
    assert finished.code == 2
    assert "store.prune=all" in finished.err
    assert kept.exists()
