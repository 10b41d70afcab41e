"""Processes that torchrun or srun has started end together: each leaves a sign of life and of its end for the others.

They have no common parent that could watch them, may run on several machines, and fail before they can talk over the
network. What they do share is the disk of the store. Before that is known, those of one machine use its folder for
temporary files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.launch import StartedProcesses, begin_launch, started_processes
from twinlens.callbacks.processes.watch import Watch, state_of

FOLDER = ".processes"
"""Inside the store; hidden, as it is no stage."""
BEAT_SECONDS = 5.0
LOOK_SECONDS = 0.5
LOST_AFTER_SECONDS = 180.0
"""A process that has left no sign for this long is gone; disks shared over a network tell of a sign a minute late."""
ABSENT_AFTER_SECONDS = 300.0
"""How long a process may take to leave its first sign: it has to read the same libraries."""
GRACE_SECONDS = 5.0
"""How long a process may take to end by itself after another one has failed."""
LET_THE_FIRST_SPEAK_SECONDS = 2.0
FORGOTTEN_AFTER_SECONDS = 86400.0


class Signs:
    """The signs of one run's processes.

    Args:
        folder: shared by them.
        processes: what was started.
        started: when this process was; older signs are those of an earlier run.
    """

    def __init__(self, folder: Path, processes: StartedProcesses, started: float) -> None:
        self.folder = folder
        self.processes = processes
        self.started = started
        self.since = time.monotonic()
        self._watches: dict[int, Watch] = defaultdict(Watch)

    def begin(self) -> None:
        """Leave the first sign of life."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sign(self.processes.rank).write_text("")

    def beat(self) -> None:
        """Leave another one."""
        with suppress(OSError):
            os.utime(self._sign(self.processes.rank))

    def end(self, code: int) -> None:
        """Leave the exit code with which this process ends; the last of those that end well tidies up."""
        with suppress(OSError):
            partial = self.folder / f".{self.processes.rank}"
            partial.write_text(str(code))
            partial.rename(self._sign(self.processes.rank))
            if all(self._sign(rank).read_text() == "0" for rank in range(self.processes.total)):
                shutil.rmtree(self.folder, ignore_errors=True)

    def speaks(self) -> bool:
        """Whether this process is the one that says what has gone wrong; true for one of them, the first if it can."""
        told = self.folder / "told"
        until = time.monotonic() + (LET_THE_FIRST_SPEAK_SECONDS if self.processes.rank else 0.0)
        while time.monotonic() < until and not self._young(told):
            time.sleep(0.05)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._young(told):
                told.unlink(missing_ok=True)
            os.close(os.open(told, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        except OSError:
            return self.processes.rank == 0
        return True

    def failed(self, seen: set[int]) -> tuple[str, int] | None:
        """What has become of another process that failed or is gone, with an exit code; None while all is well.

        Args:
            seen: processes that have left a sign before; completed here.
        """
        for rank in range(self.processes.total):
            sign = self._sign(rank)
            if rank == self.processes.rank:
                continue
            try:
                code, age = sign.read_text(), self._watches[rank].unchanged(state_of(sign.stat()))
            except (OSError, ValueError):
                if rank not in seen and time.monotonic() - self.since > ABSENT_AFTER_SECONDS:
                    return f"process {rank} has left no sign of life in {self.folder}, which all must share", 2
                continue
            if not self._young(sign) and not self._watches[rank].changes:  # a clock may lag behind this one's
                continue
            seen.add(rank)
            if code.isdecimal() and code != "0":
                return f"process {rank} of the run ended with code {code}", int(code)
            if not code and age > LOST_AFTER_SECONDS:
                return f"process {rank} of the run has left no sign of life for {LOST_AFTER_SECONDS:.0f} s", 2
        return None

    def _sign(self, rank: int) -> Path:
        return self.folder / str(rank)

    def _young(self, sign: Path) -> bool:
        """Whether a sign is there and this run's own."""
        try:
            return sign.stat().st_mtime >= self.started
        except OSError:
            return False


_joined: list[Signs] = []
"""The signs in the store, once this process has joined the others there."""


def join_processes(store: Path, end: Callable[[str | None, int], None]) -> None:
    """Watch the other processes that torchrun or srun has started for this run; nothing where there are none.

    Args:
        store: the folder that they share.
        end: ends this process, with a word on why unless that has been said, and an exit code.
    """
    processes = started_processes()
    if processes is None or processes.total < 2 or _joined:
        return
    signs = _signs_in(store / FOLDER, processes)
    try:
        if processes.rank == 0:
            _forget_old_runs(store / FOLDER)
        signs.begin()
    except OSError:
        return  # a store that can only be read; who has to write into it says so
    _joined.append(signs)
    threading.Thread(target=_watch, args=(signs, end), daemon=True).start()


def speaks_for_all() -> bool | None:
    """Whether this process says what all processes have met; None where neither torchrun nor srun started several."""
    signs = _current()
    return None if signs is None else signs.speaks()


def tell_the_others(code: int) -> None:
    """Let the others know how this process ends; nothing where there are none."""
    for signs in _joined:
        signs.end(code)


def are_watched() -> bool:
    """Whether this process will be ended when another one has failed."""
    return bool(_joined)


def _current() -> Signs | None:
    if _joined:
        return _joined[0]
    try:
        processes = started_processes()
    except UserError:  # which is what is to be said
        return None
    if processes is None or processes.total < 2:
        return None
    return _signs_in(Path(tempfile.gettempdir()) / f"twinlens-{getattr(os, 'getuid', int)()}", processes)


def _signs_in(parent: Path, processes: StartedProcesses) -> Signs:
    launch = begin_launch(processes.rank == 0)
    return Signs(parent / hashlib.sha256(launch.token.encode()).hexdigest()[:24], processes, launch.started)


def _forget_old_runs(parent: Path) -> None:
    for folder in parent.glob("*"):
        if time.time() - folder.stat().st_mtime > FORGOTTEN_AFTER_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _watch(signs: Signs, end: Callable[[str | None, int], None]) -> None:
    """Leave signs of life, and end with the first process that has failed."""
    seen: set[int] = set()
    beaten = time.monotonic()
    while (failure := signs.failed(seen)) is None:
        time.sleep(LOOK_SECONDS)
        if time.monotonic() - beaten > BEAT_SECONDS:
            signs.beat()
            beaten = time.monotonic()
    time.sleep(GRACE_SECONDS)
    what, code = failure
    signs.end(code)
    end(what if signs.speaks() else None, code)
