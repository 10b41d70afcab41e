"""Locks with owner and heartbeat: one writer per entry, and dead owners are found."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from twinlens.attribution.errors import UserError

HEARTBEAT_SECONDS = 5.0
STALE_AFTER_SECONDS = 60.0
"""A lock whose owner has not touched it for this long is taken over (its machine died)."""


class Lock:
    """One writer per entry: a file with owner and heartbeat.

    As a context manager it gives True to the owner, and False once `until()` holds because another process finished.

    Args:
        path: the lock file.
        until: whether the work is done by someone else, so that waiting can end.
        key: the configuration key that says where the folder lies.
        launch: token of the run, by which its other processes know that it is theirs who holds the lock.
    """

    def __init__(self, path: Path, until: Callable[[], bool], key: str = "paths.store", launch: str = "") -> None:
        self.path = path
        self.key = key
        self.until = until
        self.launch = launch
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
        pid = os.getpid()
        owner = {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "launch": self.launch}
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
