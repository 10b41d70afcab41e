"""Three hundred ways to harm a store, tried in one process: every entry is read right, mended or refused, never wrong.

A small store of the project's own parts: an entry of files, one of rows, one of shards, finished or begun.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tests.faults.lock_files import dead_lock, foreign_lock
from twinlens.attribution.errors import UserError
from twinlens.callbacks.passes.shards import merge_shards, missing_shards, write_shard
from twinlens.callbacks.store import lease
from twinlens.callbacks.store.admin import entries, format_entries
from twinlens.callbacks.store.row_files import RowFiles
from twinlens.callbacks.store.store import Store

SEEDS = (0, 1)
N_SHARDS, N_ROWS = 4, 6
SECONDS = 20.0
"""An entry that is not there after so long is waited for without end."""


class Killed(BaseException):
    """Stands for the end of a process in the middle of a build."""


def values_of(seed: int) -> Tensor:
    """What an entry of a seed holds, [rows, 3]."""
    return torch.arange(N_ROWS * 3, dtype=torch.float32).view(N_ROWS, 3) + 100 * seed


def build(seed: int, folder: Path, stop_after: int | None = None) -> None:
    """Shards, rows and files of an entry, going on from what is there; `stop_after` so many shards it is killed."""
    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    owner = folder.name.removesuffix(".partial")
    rows = RowFiles.create(folder, N_ROWS, [3], {"fingerprint": owner})
    for number in missing_shards(shards, N_SHARDS):
        if stop_after is not None and number >= stop_after:
            raise Killed
        index = torch.arange(number, N_ROWS, N_SHARDS)
        rows.write(index.tolist(), [values_of(seed)[index]])
        write_shard(shards, number, {"index": index, "value": values_of(seed)[index]})
    again = rows.damaged()
    rows.write(again, [values_of(seed)[again]])
    torch.save(merge_shards(shards, N_SHARDS)[0]["value"], folder / "value.pt")
    (folder / "dataset").mkdir(exist_ok=True)
    (folder / "dataset" / "data.json").write_text(json.dumps(values_of(seed).tolist()))


def read(folder: Path) -> list[Tensor]:
    """Everything that an entry says."""
    return [
        torch.load(folder / "value.pt", weights_only=True),
        RowFiles(folder).map()[0],
        torch.tensor(json.loads((folder / "dataset" / "data.json").read_text())),
    ]


def make(root: Path, partial: bool) -> list[Path]:
    """A store with an entry per seed, finished or begun; returns their folders."""
    for seed in SEEDS:
        store = Store(root)
        if not partial:
            store.get("stage", {"seed": seed}, lambda folder, seed=seed: build(seed, folder))  # type: ignore[misc]
            continue
        try:
            store.get("stage", {"seed": seed}, lambda folder, seed=seed: build(seed, folder, 2))  # type: ignore[misc]
        except Killed:
            continue
    return sorted((root / "stage").iterdir())


@dataclass
class Series:
    """What came of many damaged stores."""

    tried: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def flip(file: Path, draw: random.Random) -> None:
    """Turn one bit and set the old times again."""
    before, content = file.stat(), bytearray(file.read_bytes() or b"\0")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(max(1, file.stat().st_size))])


def replace_by(kind: str) -> Callable[[Path, random.Random], None]:
    def harm(path: Path, draw: random.Random) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind == "full folder":
            path.mkdir()
            (path / "something").write_text("else")
        elif kind == "dangling link":
            path.symlink_to(path.parent / "nowhere")
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "nothing":
            pass
        else:
            path.write_bytes(CONTENTS[kind])

    return harm


CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "huge": b"x" * 2_000_000,
    "null": b"null",
    "list": b"[1, 2]",
    "number": b"3",
    "string": b'"manifest"',
    "braces": b"{}",
    "nested": b"[" * 200_000,
    "not finite": b'{"files": {}, "inputs": {}, "created": NaN}',
    "wrong types": b'{"files": {"value.pt": 3}, "inputs": [], "created": "x", "labels": 7}',
    "null files": b'{"files": null, "inputs": null, "labels": null, "fingerprint": 1, "stage": []}',
    "before": b'{"files": {"value.pt": {"size": 3, "sha256": "x"}}, "inputs": {}, "created": 1.0, "labels": {}}',
    "odd names": b'{"files": {"\\u0000": {"size": 1, "xxh3": "x"}, "../x": {"size": -1, "xxh3": null}}, "inputs": {}}',
}
KINDS = ("folder", "full folder", "dangling link", "loop", "pipe", "nothing", *CONTENTS)


def swap_entries(folders: Sequence[Path], draw: random.Random) -> None:
    """Each of two entries under the name of the other."""
    one, other = folders
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def swap_files(folders: Sequence[Path], draw: random.Random) -> None:
    """A file of one entry in the place of the other's."""
    files = [path for path in sorted(folders[0].rglob("*")) if path.is_file() and not path.is_symlink()]
    one = draw.choice(files)
    other = folders[1] / one.relative_to(folders[0])
    if other.is_file():
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)


def copy_shard(folders: Sequence[Path], draw: random.Random) -> None:
    """A shard under another one's number."""
    shards = sorted((folders[0] / "shards").glob("*.safetensors"))
    one, other = draw.sample(shards, 2)
    shutil.copy2(one, other)


def some_file(folders: Sequence[Path], draw: random.Random) -> Path:
    files = [path for path in sorted(draw.choice(folders).rglob("*")) if path.is_file() and path.name != "used"]
    return draw.choice(files)


def locked(kind: str) -> Callable[[Sequence[Path], random.Random], None]:
    def harm(folders: Sequence[Path], draw: random.Random) -> None:
        lock = draw.choice(folders).with_suffix(".lock")
        if kind == "dead":
            dead_lock(lock)
        elif kind == "foreign":
            foreign_lock(lock)
        elif kind == "of the future":
            foreign_lock(lock)
            os.utime(lock, (4e9, 4e9))
        elif kind == "of before":
            lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
        elif kind == "exclusive":
            lock.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=exclusive\n")
        elif kind == "of no mode":
            lock.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=other\n")
        elif kind == "for ever":
            lock.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=a\nduration=1e300\n")
        elif kind == "strict":
            lock.write_bytes(b"1\nfilelock-strict-v1\x00\n0\n")
        else:
            replace_by(kind)(lock, draw)

    return harm


HARMS = ("file", "flip", "cut", "swapped entries", "swapped files", "shards", "entry", "lock", "manifest")
LOCKS = ("dead", "foreign", "of the future", "of before", "exclusive", "of no mode", "for ever", "strict", *KINDS)


def harm(root: Path, draw: random.Random) -> str:
    """Make a store and harm it in a way that is drawn; returns its name."""
    partial = draw.random() < 0.4
    folders = make(root, partial)
    state = "begun" if partial else "finished"
    what = draw.choice(
        ("file", "flip", "cut", "swapped entries", "swapped files", "shards", "entry", "lock", "manifest")
    )
    if what == "lock":
        kind = draw.choice(LOCKS)
        if not partial and draw.random() < 0.7:
            replace_by("nothing")(folders[0] / "manifest.json", draw)  # so that somebody asks for the lock
        locked(kind)(folders if partial else folders[:1], draw)
        return f"lock: {kind}"
    if what == "manifest" and not partial:
        kind = draw.choice(KINDS)
        replace_by(kind)(folders[0] / "manifest.json", draw)
        return f"manifest: {kind}"
    if what == "entry":
        kind = draw.choice(KINDS)
        replace_by(kind)(folders[0], draw)
        return f"{state} entry: {kind}"
    if what == "shards":
        copy_shard(folders, draw)
        return f"{state}: a shard under another number"
    if what == "swapped entries":
        swap_entries(folders, draw)
        return f"{state}: swapped entries"
    if what == "swapped files":
        swap_files(folders, draw)
        return f"{state}: swapped files"
    if what == "flip":
        flip(some_file(folders, draw), draw)
        return f"{state}: a bit, old times"
    if what == "cut":
        cut(some_file(folders, draw), draw)
        return f"{state}: cut"
    kind = draw.choice(KINDS)
    replace_by(kind)(some_file(folders, draw), draw)
    return f"{state} file: {kind}"


def try_store(root: Path, name: str, series: Series) -> None:
    """Ask for every entry as a run does, and list the store."""
    results: dict[int, str] = {}

    def ask() -> None:
        for seed in SEEDS:
            try:
                format_entries(root, entries(root))
                entry = Store(root).get("stage", {"seed": seed}, lambda folder, seed=seed: build(seed, folder))  # type: ignore[misc]
                right = all(torch.equal(found, values_of(seed)) for found in read(entry.path))
                results[seed] = ("read" if entry.reused else "computed") if right else "WRONG"
            except UserError:
                results[seed] = "refused"
            except BaseException as error:
                results[seed] = f"{type(error).__name__}: {error}"

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    series.tried[name] += 1
    for seed in SEEDS:
        came = results.get(seed, "waited without end")
        series.outcomes[came if came in ("read", "computed", "refused") else "wrong"] += 1
        if came not in ("read", "computed", "refused"):
            series.wrong.append(f"{root.name} {name}, seed {seed}: {came}")


def run_series(count: int, seed: int, root: Path) -> Series:
    """Harm so many stores and ask each for its entries. Waits for the dead are cut to tenths of seconds meanwhile."""
    series, draw = Series(), random.Random(seed)
    kept = lease.LEASE_SECONDS, lease.STRANGE_SECONDS, lease.HEARTBEAT_SECONDS
    lease.LEASE_SECONDS, lease.STRANGE_SECONDS, lease.HEARTBEAT_SECONDS = 0.9, 0.3, 0.2
    try:
        for number in range(count):
            place = root / f"store{number}"
            name = harm(place, draw)
            before = len(series.wrong)
            try_store(place, name, series)
            if len(series.wrong) == before:
                shutil.rmtree(place)
    finally:
        lease.LEASE_SECONDS, lease.STRANGE_SECONDS, lease.HEARTBEAT_SECONDS = kept
    return series
