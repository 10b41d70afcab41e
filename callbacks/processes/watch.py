"""Time for which something has stayed as it is, whatever the clocks of machines say."""

from __future__ import annotations

import os
import time

State = tuple[int, int, int, int]


class Watch:
    """Looks at the state of a file now and then, by this process's own monotonic clock.

    Attributes:
        changes: how often it was seen in another state than before.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._state: State | None = None
        self._since = 0.0

    def unchanged(self, state: State) -> float:
        """Seconds since it was first seen in this state."""
        if state != self._state:
            self.changes += self._state is not None
            self._state, self._since = state, time.monotonic()
        return time.monotonic() - self._since


def state_of(file: os.stat_result) -> State:
    """Size, inode and times of a file; another state is a sign of life of who writes it."""
    return file.st_size, file.st_ino, file.st_mtime_ns, file.st_ctime_ns
