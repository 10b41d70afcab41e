"""The store: one writer, no half result, nothing mixed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.faults.lock_files import dead_lock, foreign_lock
from twinlens.attribution.errors import UserError
from twinlens.callbacks.store import lease
from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.callbacks.store.lock import Lock
from twinlens.callbacks.store.store import Store
from twinlens.callbacks.store.weights import weights_hash


def build_file(text: str):
    def build(folder: Path) -> None:
        (folder / "value.txt").write_text(text)

    return build


def test_computed_once_and_read_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.get("fit", {"seed": 0}, build_file("one"))
    second = Store(tmp_path).get("fit", {"seed": 0}, build_file("two"))
    other = store.get("fit", {"seed": 1}, build_file("three"))
    assert (first.reused, second.reused, other.reused) == (False, True, False)
    assert (second.path / "value.txt").read_text() == "one"
    assert (other.path / "value.txt").read_text() == "three"
    assert json.loads((first.path / "manifest.json").read_text())["inputs"] == {"seed": 0}


def test_a_failed_build_leaves_no_result_but_what_it_did(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(folder: Path) -> None:
        (folder / "shard").write_text("kept")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        store.get("fit", {"seed": 0}, fails)

    def goes_on(folder: Path) -> None:
        assert (folder / "shard").read_text() == "kept"

    assert not store.get("fit", {"seed": 0}, goes_on).reused


def test_an_entry_killed_before_its_renaming_is_finished_once(tmp_path: Path) -> None:
    """Its description was written already, in other words and length than the next one's."""
    killed = tmp_path / "fit" / f"{fingerprint_of({'seed': 0})}.partial"
    build_file("one")(Path(shutil.copytree(Store(tmp_path).get("fit", {}, build_file("one")).path, killed)))
    assert not Store(tmp_path).get("fit", {"seed": 0}, build_file("one"), {"model": "tiny"}).reused
    assert Store(tmp_path).get("fit", {"seed": 0}, build_file("two")).reused


def test_overwrite_recomputes_once_per_run(tmp_path: Path) -> None:
    Store(tmp_path).get("fit", {}, build_file("old"))
    store = Store(tmp_path, overwrite=True)
    assert not store.get("fit", {}, build_file("new")).reused
    again = store.get("fit", {}, build_file("newer"))
    assert again.reused
    assert (again.path / "value.txt").read_text() == "new"


def _get_in_process(root: Path, text: str) -> None:
    def build(folder: Path) -> None:
        with (root / "builds").open("a") as log:
            log.write("x")
        time.sleep(0.5)
        (folder / "value.txt").write_text(text)

    Store(root).get("fit", {"seed": 0}, build)


def test_two_processes_compute_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_get_in_process, args=(tmp_path, str(n))) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "x"


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    lock = dead_lock(tmp_path / "entry.lock")
    with Lock(lock, until=lambda: False) as owner:
        assert owner
    assert not lock.exists()


@pytest.mark.parametrize("written", [-3600, 0, 3600, 10 * 365 * 86_400])
def test_a_lock_of_another_machine_holds_until_it_was_seen_without_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: float
) -> None:
    """Whatever the clocks say: it may be dated an hour ago or in ten years."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    lock = foreign_lock(tmp_path / "entry.lock")
    os.utime(lock, (time.time() + written, time.time() + written))
    with Lock(lock, until=lambda: True) as owner:
        assert not owner
    begun = time.monotonic()
    with Lock(lock, until=lambda: False) as owner:
        assert owner
    assert 1.0 <= time.monotonic() - begun < 10.0


def test_unwritable_store_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*set paths\.store=DIR"):
        Store(blocked / "store").get("fit", {}, build_file("x"))


def test_fingerprints_ignore_order_and_see_values() -> None:
    assert fingerprint_of({"a": 1, "b": [1, 2]}) == fingerprint_of({"b": [1, 2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 1.5})


def test_weights_hash_follows_content(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match="has no weights"):
        weights_hash(model, tmp_path / "cache.json")
    (model / "model.safetensors").write_bytes(b"one")
    first = weights_hash(model, tmp_path / "cache.json")
    assert weights_hash(model, tmp_path / "cache.json") == first
    (model / "model.safetensors").write_bytes(b"three")
    assert weights_hash(model, tmp_path / "cache.json") != first


def test_what_ends_inside_another_stage_says_what_is_kept_of_itself(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def inner(folder: Path) -> None:
        (folder / "shards" / "tests_0").mkdir(parents=True)
        for place in ("", "tests_0/"):
            (folder / "shards" / f"{place}shard_000000.safetensors").touch()
        raise KeyboardInterrupt

    def outer(folder: Path) -> None:
        store.get("gradients", {"of": "a row"}, inner)

    with pytest.raises(KeyboardInterrupt, match=r"in stage gradients, of which 2 finished shard\(s\) are kept"):
        store.get("attribute", {"of": "a method"}, outer)
