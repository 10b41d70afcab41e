"""An entry is what its manifest says, whatever the times of its files are; so is what is remembered of weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import CommandLine
from twinlens.callbacks.store import manifest
from twinlens.callbacks.store.manifest import damage_of, read_manifest
from twinlens.callbacks.store.store import Store
from twinlens.callbacks.store.weights import known_weights_hash, weights_hash


def build(folder: Path) -> None:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights.bin").write_bytes(bytes(1000))


def entry(root: Path, seed: int = 0) -> Path:
    return Store(root).get("fit", {"seed": seed}, build).path


def flip_under_the_old_time(file: Path) -> None:
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (lambda e: flip_under_the_old_time(e / "model" / "weights.bin"), "model/weights.bin has changed"),
    "a strange file": (lambda e: (e / "model" / "more.bin").write_text("x"), "model/more.bin is none of its files"),
    "a strange link": (lambda e: (e / "epochs").symlink_to("model"), "epochs is none of its files"),
    "a folder for a file": (
        lambda e: ((e / "model" / "weights.bin").unlink(), (e / "model" / "weights.bin").mkdir()),
        "model/weights.bin is missing",
    ),
    "other inputs": (lambda e: rewrite(e, lambda m: m["inputs"].update(seed=7)), "the inputs in its manifest.json are"),
    "another place": (lambda e: rewrite(e, lambda m: m.update(stage="attribute")), "is that of attribute/"),
    "no checksums": (
        lambda e: rewrite(e, lambda m: m.update(files={"model/weights.bin": {"size": 1000, "sha256": "x"}})),
        "manifest.json is of an earlier version",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HARM)
def test_an_entry_that_is_not_what_its_manifest_says_is_computed_again(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = entry(tmp_path)
    harm, told = HARM[what]
    harm(path)
    assert not Store(tmp_path).get("fit", {"seed": 0}, build).reused
    assert told in capsys.readouterr().out
    assert damage_of(path) == ""


def test_swapped_entries_do_not_answer_for_each_other(tmp_path: Path) -> None:
    one, other = entry(tmp_path, 1), entry(tmp_path, 2)
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    assert "is that of" in str(damage_of(one))
    assert not Store(tmp_path).get("fit", {"seed": 1}, build).reused
    found = read_manifest(one)
    assert found is not None
    assert found.inputs == {"seed": 1}


def test_content_is_read_once_in_a_process_and_again_when_a_file_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = entry(tmp_path), []
    checksum = manifest.checksum_of
    monkeypatch.setattr(manifest, "checksum_of", lambda file: (read.append(file), checksum(file))[1])
    for _ in range(3):
        assert Store(tmp_path).get("fit", {"seed": 0}, build).reused
    assert len(read) == 1
    flip_under_the_old_time(path / "model" / "weights.bin")
    assert not Store(tmp_path).get("fit", {"seed": 0}, build).reused
    assert len(read) > 1


def test_files_that_systems_leave_do_no_harm(tmp_path: Path) -> None:
    path = entry(tmp_path)
    (path / ".DS_Store").write_text("x")
    assert Store(tmp_path).get("fit", {"seed": 0}, build).reused


def checkpoint(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


def test_a_hash_is_not_remembered_for_weights_that_changed_under_an_old_time(tmp_path: Path) -> None:
    model, store = checkpoint(tmp_path / "model", b"one!"), tmp_path / "store"
    first = weights_hash(model, store / "weights.json")
    assert known_weights_hash(model, store) == first
    flip_under_the_old_time(model / "model.safetensors")
    assert known_weights_hash(model, store) is None
    second = weights_hash(model, store / "weights.json")
    assert second != first
    # another file of the same size and time, moved over it
    other, old = tmp_path / "other", (model / "model.safetensors").stat()
    other.write_bytes(b"two!")
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.rename(model / "model.safetensors")
    assert weights_hash(model, store / "weights.json") not in (first, second)


def test_remembered_hashes_that_somebody_changed_are_not_believed(tmp_path: Path) -> None:
    model, cache = checkpoint(tmp_path / "model", b"one!"), tmp_path / "weights.json"
    right = weights_hash(model, cache)
    for content in (cache.read_text().replace("a", "b"), "[]", "{}", '{"hashes": {"x": 1}}', "[" * 100_000):
        cache.write_text(content)
        assert weights_hash(model, cache) == right
    cache.unlink()
    cache.mkdir()
    assert weights_hash(model, cache) == right


@pytest.mark.parametrize("name", ["a b", "größer 数", "a=b,c[1]{2}"])
def test_a_store_on_an_odd_path(command: CommandLine, name: str) -> None:
    (command.folder / name).mkdir()
    (command.folder / "link").symlink_to(command.folder / name)
    arguments = ("method=gradsim", "evaluation=accuracy")
    quoted = str(command.folder / name / "store")
    assert command(*arguments, f"paths.store='{quoted}'").code == 0
    assert list((command.folder / name / "store").glob("fit/*/manifest.json"))
    again = command(*arguments, "paths.store=link/store")  # relative, through a link
    assert again.code == 0, again.err
    assert "gradsim: read from the store" in again.out
