"""The store: every heavy stage under the fingerprint of all it depends on, written once, read by every run.

An entry is a folder `<store>/<stage>/<fingerprint>`. It is built as `<fingerprint>.partial`, beside a lock file that
names its owner, and renamed when complete: a half-written result is never read as one.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from attribution.base import UserError
from callbacks.files import is_first_process, remove_partial_files, write_json
from callbacks.manifest import open_entry, write_manifest
from callbacks.storage import telling_what_is_kept, writing

HEARTBEAT_SECONDS = 5.0
STALE_AFTER_SECONDS = 60.0
"""A lock whose owner has not touched it for this long is taken over (its machine died)."""


@dataclass(frozen=True)
class Entry:
    """A finished stage.

    Attributes:
        stage: fit, examples, attribute or evaluate.
        fingerprint: sha256 of everything the stage depends on.
        path: its folder.
        reused: whether an earlier run had computed it.
    """

    stage: str
    fingerprint: str
    path: Path
    reused: bool


class Store:
    """Finished stages in a folder.

    Args:
        root: the folder (`paths.store`).
        overwrite: recompute what this run asks for even where it is there.
    """

    def __init__(self, root: Path, overwrite: bool = False) -> None:
        self.root = root
        self.overwrite = overwrite
        self._written: set[Path] = set()

    def get(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        build: Callable[[Path], None],
        labels: Mapping[str, Any] | None = None,
    ) -> Entry:
        """The finished entry for `inputs`, built with `build(folder)` where it is not there yet.

        `build` gets a folder that outlives a killed process, so that it can go on from what it finds there. `labels`
        are what a person knows the entry by; they are shown by `store.list=true` and do not identify it.

        Raises:
            UserError: the store cannot be written, or the entry is damaged.
        """
        fingerprint = fingerprint_of(inputs)
        final = self.root / stage / fingerprint
        if self._usable(final):
            self._tidy(final)
            open_entry(final)
            return Entry(stage, fingerprint, final, reused=True)
        if not is_first_process():
            return self._join(stage, fingerprint, final, build)
        with Lock(final.with_suffix(".lock"), until=lambda: self._usable(final)) as owner:
            if not owner or self._usable(final):
                open_entry(final)
                return Entry(stage, fingerprint, final, reused=True)
            partial = final.with_suffix(".partial")
            with writing(partial, "paths.store"), telling_what_is_kept(partial):
                partial.mkdir(parents=True, exist_ok=True)
                build(partial)
                remove_partial_files(partial, ".*")  # libraries leave hidden files of names of their own
                write_manifest(partial, stage, fingerprint, inputs, labels or {})
                replaced = final.with_suffix(".replaced")
                shutil.rmtree(replaced, ignore_errors=True)
                if final.exists():
                    final.rename(replaced)  # removed in one step: an entry is never seen half-removed
                partial.rename(final)
                shutil.rmtree(replaced, ignore_errors=True)
        self._written.add(final)
        return Entry(stage, fingerprint, final, reused=False)

    def peek(self, stage: str, inputs: Mapping[str, Any]) -> Path | None:
        """Folder of the finished entry for `inputs`, None where it would be computed; waits and writes nothing."""
        final = self.root / stage / fingerprint_of(inputs)
        return final if self._usable(final) else None

    def _join(self, stage: str, fingerprint: str, final: Path, build: Callable[[Path], None]) -> Entry:
        """Compute together with the first process, which alone locks, finishes and renames."""
        partial = final.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        build(partial)
        while not (final / "manifest.json").is_file():
            time.sleep(0.1)
        return Entry(stage, fingerprint, final, reused=False)

    def _tidy(self, final: Path) -> None:
        """Remove what a process left beside its entry when it was killed after that was complete."""
        lock, replaced = Lock(final.with_suffix(".lock"), until=lambda: True), final.with_suffix(".replaced")
        if (lock.path.is_file() or replaced.is_dir()) and lock.holder() is None and is_first_process():
            with suppress(OSError):  # the store may be one that can only be read
                lock.remove_abandoned()
                shutil.rmtree(replaced)

    def _usable(self, final: Path) -> bool:
        return (final / "manifest.json").is_file() and (not self.overwrite or final in self._written)


def fingerprint_of(inputs: Mapping[str, Any]) -> str:
    """sha256 of plain values, independent of the order of keys."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def code_hash(modules: Iterable[str]) -> str:
    """sha256 over the source of modules (packages: their own files), so that a code change redoes its stage only."""
    digest = hashlib.sha256()
    for name in sorted(set(modules)):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(name)
        origin = Path(spec.origin)
        for file in sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def weights_hash(folder: Path, cache: Path) -> str:
    """sha256 over a checkpoint's weights and configuration, remembered by (path, size, modification time)."""
    files = _hashed_files(folder)
    if not any(file.name != "config.json" for file in files):
        raise UserError(f"{folder} has no weights; expected model.safetensors: check model.path.")
    known = _read_cache(cache)
    unknown = {key: file for file, key in files.items() if key not in known}
    for key, file in unknown.items():
        with file.open("rb") as opened:
            known[key] = hashlib.file_digest(opened, "sha256").hexdigest()
    if unknown:
        with suppress(OSError):  # of a store that can only be read, the hashes are taken anew
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, known)
    digest = hashlib.sha256()
    for file, key in files.items():
        digest.update(f"{file.name}:{known[key]}".encode())
    return digest.hexdigest()[:24]


def known_weights_hash(folder: Path, store: Path) -> str | None:
    """What `weights_hash` gives, as far as a run of this store has read the weights before; else None."""
    cache = store / "weights.json"
    files = _hashed_files(folder) if folder.is_dir() else {}
    if not files or not _read_cache(cache).keys() >= set(files.values()):
        return None
    return weights_hash(folder, cache)


def _hashed_files(folder: Path) -> dict[Path, str]:
    """A checkpoint's weight files and configuration in order of name, each with the key its hash is remembered by."""
    files = sorted(f for f in folder.iterdir() if f.suffix in (".safetensors", ".bin") or f.name == "config.json")
    return {f: f"{f.resolve()}|{f.stat().st_size}|{f.stat().st_mtime_ns}" for f in files}


def _read_cache(cache: Path) -> dict[str, str]:
    """Remembered hashes; a cache that cannot be read is as good as none."""
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


class Lock:
    """One writer per entry: a file with owner and heartbeat.

    As a context manager it gives True to the owner, and False once `until()` holds because another process finished.

    Args:
        path: the lock file.
        until: whether the work is done by someone else, so that waiting can end.
        key: the configuration key that says where the folder lies.
    """

    def __init__(self, path: Path, until: Callable[[], bool], key: str = "paths.store") -> None:
        self.path = path
        self.key = key
        self.until = until
        self._stop = threading.Event()
        self._owned = False

    def __enter__(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        announced = False
        while not self._acquire():
            if self.until():
                return False
            if self._abandoned():
                self.remove_abandoned()
                continue
            if not announced:
                print(f"waiting for another run that computes {self.path.stem} ({self._owner()})", flush=True)
                announced = True
            time.sleep(0.5)
        self._owned = True
        threading.Thread(target=self._beat, daemon=True).start()
        return True

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._owned:
            self.path.unlink(missing_ok=True)

    def holder(self) -> dict[str, Any] | None:
        """Host, pid and start time of the process that holds the lock, None where no living one does."""
        return self._owner() if self.path.is_file() and not self._abandoned() else None

    def _acquire(self) -> bool:
        """Make the lock file together with what stands in it: a kill in between would leave a lock without owner."""
        prepared = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        try:
            prepared.write_text(json.dumps(owner))
            os.link(prepared, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            with suppress(OSError):
                prepared.unlink()
        return True

    def remove_abandoned(self) -> None:
        """Remove the lock unless someone took it over meanwhile: of several that wait, one removes at a time."""
        with (self.path.parent / ".takeover").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if self._abandoned():
                self.path.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"{self.path.parent} cannot be written ({error.strerror}); expected a writable folder: set {self.key}=DIR."
        )

    def _owner(self) -> dict[str, Any]:
        try:
            return json.loads(self.path.read_text())
        except (OSError, json.JSONDecodeError):
            return {}

    def _abandoned(self) -> bool:
        """Whether the owner is gone: its process has ended, or another machine's heartbeat has."""
        owner = self._owner()
        if owner.get("host") == socket.gethostname():
            return _started(owner["pid"]) != owner.get("started")
        try:
            return time.time() - self.path.stat().st_mtime > STALE_AFTER_SECONDS
        except FileNotFoundError:
            return False

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                return


def _started(pid: int) -> float | None:
    """Start time of a process, which tells a reused process id from the original; None when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
