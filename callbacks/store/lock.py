"""Locks: one writer per entry; dead owners are found, living ones are never robbed, and rubbish is cleared away."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, LeaseSettingsMismatch, Timeout

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.watch import Watch
from twinlens.callbacks.store import lease

ASK_AGAIN_SECONDS = 0.5
GUARD = ".takeover"
"""Beside locks: held while one of several that wait removes what is no lease."""


class Lock:
    """One writer per entry: a lease that its owner renews.

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
        self._lease = lease.lease_at(path, launch)
        self._watch = Watch()

    def __enter__(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        announced = False
        while not self.take():
            if self.until():
                return False
            if not announced:
                print(f"waiting for another run that computes {self.path.stem} ({self._named()})", flush=True)
                announced = True
            time.sleep(ASK_AGAIN_SECONDS)
        return True

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # of a folder that has vanished nothing is left to give back
            self._lease.release()

    @property
    def lost(self) -> bool:
        """Whether another process took the lock over from this one, which must have stood still for minutes."""
        return self._lease.compromise is not None

    def take(self) -> bool:
        """Try once to become the owner.

        Raises:
            UserError: the folder cannot be written, or something lies there that cannot be cleared away.
        """
        try:
            if not self._may_be_asked_for():
                return False
            self._lease.acquire(blocking=False)
        except (Timeout, LeaseSettingsMismatch):
            return False
        except OSError as error:
            raise self._unusable(error) from error
        return True

    def holder(self) -> dict[str, Any] | None:
        """Host, pid, start time and launch of the process that holds the lock, None where it has provably ended.

        Of a process of another machine or container only time tells whether it lives, see `shows_life`.
        """
        seen = self._look()
        return None if seen is None or seen.is_dead or not seen.holder else seen.holder

    def shows_life(self) -> bool:
        """Whether the owner lives on this machine, or has given a sign of life since this lock was first looked at."""
        seen = self._look()
        if seen is None:
            return False
        self._watch.unchanged(seen.state)
        return seen.is_here or self._watch.changes > 0

    def _look(self) -> lease.Seen | None:
        with suppress(OSError):
            return lease.look(self.path)
        return None

    def _named(self) -> str:
        holder = self.holder()
        return f"process {holder['pid']} on {holder['host']}" if holder else "which does not say who it is"

    def _may_be_asked_for(self) -> bool:
        """Whether there is no lock or a lease; removes what no owner will ever give back.

        That is what filelock leaves alone: files that are no lease of this kind, and on disks that cannot exchange two
        names the leases of the dead. Nothing is removed that changes now and then, as whatever a run holds does.
        """
        seen = lease.look(self.path)
        if seen is None:
            return True
        if not seen.holder:
            patience = lease.STRANGE_SECONDS
        elif seen.is_dead:
            patience = 2 * ASK_AGAIN_SECONDS
        else:
            patience = lease.LEASE_SECONDS + (lease.HEARTBEAT_SECONDS if seen.is_ours else 0.0)
        if self._watch.unchanged(seen.state) < patience:
            return seen.is_ours
        with suppress(Timeout), FileLock(self.path.parent / GUARD, timeout=lease.STRANGE_SECONDS):
            again = lease.look(self.path)
            if again is not None and again.state == seen.state:
                print(f"{self.path} belonged to no living run: removed", flush=True)
                if self.path.is_dir() and not self.path.is_symlink():
                    self.path.rmdir()  # of one with something in it a person has to say what that is
                else:
                    self.path.unlink()
        return True

    def _unusable(self, error: OSError) -> UserError:
        return UserError(
            f"{error.filename or self.path.parent} cannot be written ({error.strerror}); expected a writable folder: "
            f"set {self.key}=DIR."
        )
