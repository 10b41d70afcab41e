"""A process that a run has started ends with the one that started it, however that has ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress

VARIABLE = "TWINLENS_PARENT"
"""Environment variable: the number of the process that starts others for its run."""
EVERY_SECONDS = 0.2
GRACE_SECONDS = 5.0
"""How long a process may take to end by itself after the one that started it has ended."""
PR_SET_PDEATHSIG = 1
NUMBERS_OF_OTHERS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")
"""Environment variables of which one is above zero in all processes of a run but the first."""

_watching = threading.Event()
_told = threading.Event()


def is_first() -> bool:
    """Whether this is the run's only or first process, as far as whoever started it has told it."""
    return all(os.environ.get(name, "0") in ("", "0") for name in NUMBERS_OF_OTHERS)


def start_others() -> None:
    """Note that this process is going to start others, which are to end with it."""
    os.environ[VARIABLE] = str(os.getpid())


def end_with_parent() -> None:
    """Where a run has started this process: end when what started it does; on Linux the system sends SIGTERM then.

    Nothing on Windows, where what starts a process need not be its parent.
    """
    parent = _starter()
    if parent is None or (parent != os.getppid() and is_first()):
        return  # the variable came down through others to a command that a user has typed
    with suppress(OSError, AttributeError):  # where the system has no such call, the thread alone sees to it
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    watch_parent(parent)


def end_with_starter_of_worker() -> None:
    """The same in a worker that a launcher of sweeps has forked or started from the process that began the sweep."""
    parent = _starter()
    if parent is not None and parent == os.getppid():
        watch_parent(parent)  # by a thread alone: the system would tell of the end of the thread that started it


def watch_parent(parent: int, name: str | None = None) -> None:
    """Watch a process from a thread, once: when it is this one's parent no more, say so and end.

    Args:
        parent: number of the process.
        name: what it is to this one; None: by this one's place in the run.
    """
    if not _watching.is_set():
        _watching.set()
        name = name or ("what started it" if is_first() else "the first process of the run")
        threading.Thread(target=_watch, args=(parent, name), daemon=True).start()


def end_of_first() -> str | None:
    """The line on the end of the run's first process, which started this one; None where it lives or is this one.

    None also where this process has been given such a line before.
    """
    parent = _starter()
    if is_first() or parent is None or not _has_ended(parent):
        return None
    return once_of_ended(f"the first process of the run ({parent}) has ended")


def once_of_ended(what: str) -> str | None:
    """The line of `of_ended` the first time; None after it: a slow end is told by the thread that watches, too."""
    if _told.is_set():
        return None
    _told.set()
    return of_ended(what)


def of_ended(what: str) -> str:
    """The line of a process that stops because another one has ended."""
    return f"stopped: {what}, so the others stop too; finished stages and shards are kept, and the same command goes on"


def _has_ended(parent: int) -> bool:
    """Whether the process that started this one has ended, or is ending.

    The system sends its signal when the thread that started this process ends. Of a large process that has been killed
    other threads may still be giving back its memory then: it is this one's parent until they have, with a main thread
    that is dead.
    """
    if os.getppid() != parent:
        return True
    import psutil  # not above: this module is read before signals are heard

    try:
        return psutil.Process(parent).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return os.getppid() != parent


def _starter() -> int | None:
    """Number of the process that has started others, this one perhaps among them; None on Windows.

    None also in a process of torchrun or srun: no run has started it, whatever variable came down to it.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("SLURM_PROCID", "0") not in ("", "0"):
        return None
    number = os.environ.get(VARIABLE, "")
    return int(number) if os.name == "posix" and number.isdecimal() and int(number) != os.getpid() else None


def _watch(parent: int, name: str) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY_SECONDS)
    time.sleep(GRACE_SECONDS)
    line = once_of_ended(f"{name} ({parent}) has ended")
    with suppress(OSError):  # whoever read it may have ended, too
        os.write(2, f"{line}\n".encode() if line else b"")
    os._exit(2)
