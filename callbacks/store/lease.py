"""The file of a lock: filelock's lease, which also says whose launch it is, and what can be told of a file there.

A contender never compares clocks: it takes a lease over when it has seen no sign of life in it for `LEASE_SECONDS` of
its own monotonic clock, at once where it can prove that the owner's process is gone. For that, the name of the host in
a lease includes the PID namespace: in another container the same number is another process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import SoftFileLease
from filelock._identity import host_name, owner_is_stale  # private: the version is pinned in pyproject.toml
from filelock._marker import parse_marker
from filelock._soft import read_lock_file

from twinlens.callbacks.processes.watch import State, state_of

LEASE_SECONDS = 120.0
"""A lease that shows no sign of life for so long is taken over: its machine died. Network disks tell of one late."""
HEARTBEAT_SECONDS = 5.0
STRANGE_SECONDS = 12.0
"""What is no lease at all is removed when it has not changed for so long, more than two heartbeats of any version."""
NAMESPACE = "?pidns-"
"""What filelock puts between the name of a host and a PID namespace."""


class LaunchLease(SoftFileLease):
    """A lease whose file says of which launch it is; the run's other processes know by that whose turn it is.

    Attributes:
        launch: token of the run, letters and digits.
    """

    launch: str = ""

    def _write_lock_info(self, fd: int) -> None:  # type: ignore[override]  # static there, and called on the lock
        super()._write_lock_info(fd)
        os.write(fd, f"launch={self.launch}\nstarted={psutil.Process().create_time()!r}\n".encode())


def lease_at(path: Path, launch: str) -> LaunchLease:
    """The lease whose file is `path`, not taken yet."""
    lease = LaunchLease(
        path, lease_duration=LEASE_SECONDS, heartbeat_interval=min(HEARTBEAT_SECONDS, LEASE_SECONDS / 3)
    )
    lease.launch = launch
    return lease


@dataclass(frozen=True)
class Seen:
    """What lies at the path of a lock.

    Attributes:
        state: size, inode and times; another one is a sign of life.
        holder: host, pid, start and launch of who wrote it; empty where it is no lease.
        is_ours: whether it is a lease of the duration that is used here.
        is_here: whether its process lives in this PID namespace of this machine.
        is_dead: whether that process has provably ended.
    """

    state: State
    holder: dict[str, Any]
    is_ours: bool
    is_here: bool
    is_dead: bool


def look(path: Path) -> Seen | None:
    """What lies at the path of a lock, None where nothing does.

    Raises:
        OSError: it cannot be read.
    """
    try:
        content, state = read_lock_file(str(path))
    except FileNotFoundError:
        return None
    record = parse_marker(content)
    seen = state_of(state)
    if record is None or record.mode == "unknown":
        return Seen(seen, {}, is_ours=False, is_here=False, is_dead=False)
    dead = owner_is_stale(record.pid, record.hostname, record.start)
    ours = record.mode == "lease" and record.lease_duration == LEASE_SECONDS
    more = dict(line.partition("=")[::2] for line in (content or "").splitlines())
    holder = {
        "host": record.hostname.partition(NAMESPACE)[0],
        "pid": record.pid,
        "started": _number(more.get("started", "")),
        "launch": more.get("launch", ""),
    }
    return Seen(seen, holder, ours, is_here=record.hostname == host_name() and not dead, is_dead=dead)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
