"""Sign that a run in progress leaves in its store: what such a run may still read is not cleared away."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store import lease
from twinlens.callbacks.store.lock import Lock

FOLDER = ".running"
"""Below the store: a lease for each run."""
SILENT_SECONDS = 3600.0
"""A lease of another machine without a sign of life for so long is that of a dead one."""


@contextmanager
def running(store: Path) -> Iterator[None]:
    """Leave the sign while the body runs; nothing in a store that may only be read, which nobody clears either.

    Args:
        store: its root.
    """
    sign = Lock(store / FOLDER / f"{uuid.uuid4().hex}.lock", until=lambda: True)
    held = False
    if is_first_process():
        with suppress(UserError):
            held = sign.__enter__()
            running_since(store)  # clears away what killed runs have left
    try:
        yield
    finally:
        if held:
            sign.__exit__()


def running_since(store: Path) -> float | None:
    """When the first of the runs in progress began, seconds since 1970; None where there is none.

    Signs of processes that have ended are removed.
    """
    starts = []
    for sign in (store / FOLDER).glob("*.lock"):
        with suppress(OSError):
            seen = lease.look(sign)
            if seen is None:
                continue
            if seen.is_dead or (not seen.is_here and time.time() - sign.stat().st_mtime > SILENT_SECONDS):
                sign.unlink()
            else:
                starts.append(float(seen.holder.get("started") or 0.0))
    return min(starts, default=None)
