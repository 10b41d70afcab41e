"""One run per run folder: a second one is refused by name, the folder of a killed one is taken over."""

from __future__ import annotations

from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.store.lock import Lock

NAME = ".run.lock"
_HELD: dict[Path, Lock] = {}
"""Locks of this process's runs."""


def claim(folder: Path) -> None:
    """Take a run folder for this process.

    Raises:
        UserError: another process that lives runs in it.
    """

    def refuse() -> bool:
        if lock.shows_life():
            holder = lock.holder() or {}
            raise UserError(
                f"{folder} is in use by another run (process {holder.get('pid')} on {holder.get('host')}); expected a "
                "run folder of its own: set hydra.run.dir=DIR, or wait until that run has ended."
            )
        return False

    lock = Lock(folder / NAME, until=refuse, key="hydra.run.dir")
    lock.__enter__()
    _HELD[folder.resolve()] = lock


def release(folder: Path) -> None:
    """Give a run folder back; nothing where this process does not hold it."""
    lock = _HELD.pop(folder.resolve(), None)
    if lock is not None:
        lock.__exit__()
