"""Files of locks as other processes leave them."""

from __future__ import annotations

import os
from pathlib import Path

from filelock._identity import host_name, process_start_token
from filelock._marker import OwnerRecord, encode_marker

from twinlens.callbacks.store import lease

NO_PROCESS = 2**22 + 1
"""A number that Linux gives to no process."""


def lock_of(path: Path, pid: int, host: str | None = None, start: int | None = None) -> Path:
    """The lock of a process of this host, or of another one."""
    start = process_start_token(pid) if start is None and host is None else start
    record = OwnerRecord(pid, host or host_name(), "lease", "1" * 32, lease.LEASE_SECONDS, start)
    path.write_bytes(encode_marker(record))
    return path


def living_lock(path: Path) -> Path:
    """The lock of a process that lives here: this one."""
    return lock_of(path, os.getpid())


def dead_lock(path: Path) -> Path:
    """The lock of a process of this machine that has ended."""
    return lock_of(path, NO_PROCESS, start=1)


def foreign_lock(path: Path) -> Path:
    """The lock of a process of another machine, of which nobody here can tell whether it lives."""
    return lock_of(path, 1, "elsewhere")
