"""Ctrl-C and SIGTERM end a run alike: with one line on what is kept, in every stage, within seconds.

Both become KeyboardInterrupt in the main thread. Where that does not end the process, as inside a library's long call
or while processes wait for each other, a thread does. It learns of a signal at once, whatever the main thread is doing.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from twinlens.callbacks.processes.parents import end_of_first, is_first

SECONDS = 7.0
"""How long a run may take to end by itself."""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""What the line begins with."""
KEPT = "finished stages are kept in the store; the same command goes on"

SOON_SECONDS = 0.05
"""After which an interruption that was lost is made again, outside of where it was."""

_received: list[signal.Signals] = []
_lost = threading.Event()


def received() -> signal.Signals | None:
    """The signal that is ending this process; None where it goes on, or ends for another reason."""
    return _received[0] if _received else None


def stopped_by() -> signal.Signals:
    """The signal behind a KeyboardInterrupt; where a library raised it by itself, Ctrl-C."""
    return received() or signal.SIGINT


def end_at_once_on_signals() -> None:
    """While libraries load there is nothing to keep: say so and end."""
    for number in CODES:
        signal.signal(number, _end_at_once)


def run_stoppably(work: Callable[[], int]) -> int:
    """Run a command line so that signals stop it; the handlers are afterwards as before.

    Ctrl-C works also where a shell has started the command in the background and told it to ignore the signal.

    Args:
        work: returns the exit code.

    Returns:
        the exit code, 130 or 143 where a signal came when `work` could not tell of it any more.
    """
    _received.clear()
    _lost.clear()
    hook_before, sys.unraisablehook = sys.unraisablehook, _hear_of_lost(sys.unraisablehook)
    before = {number: signal.signal(number, _stop) for number in CODES}
    hearing, telling = socket.socketpair()
    telling.setblocking(False)
    fd_before = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(hearing,), daemon=True).start()
    try:
        return work()
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and received() is None:
            raise  # which libraries make of the other
        say(stopped_by())
        return CODES[stopped_by()]
    finally:
        sys.unraisablehook = hook_before
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(fd_before)
        telling.close()


def say(number: signal.Signals, what: str = KEPT) -> None:
    """Tell what ends the run; of several processes the first one does, and where it cannot any more, the others."""
    line = f"{WORDS[number]}: {what}" if is_first() else end_of_first()
    if line is not None:
        os.write(2, f"{line}\n".encode())


def _stop(number: int, frame: FrameType | None) -> None:
    if not _received:  # what is being ended is not disturbed again; the watch ends what takes too long
        _received.append(signal.Signals(number))
        raise KeyboardInterrupt
    if _lost.is_set():
        _lost.clear()
        raise KeyboardInterrupt


def _hear_of_lost(told: Callable[[Any], object]) -> Callable[[Any], None]:
    """Python drops what is raised while an object is being removed, and says so: an interruption is made again."""

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, KeyboardInterrupt) and _received):
            told(unraisable)
            return
        _lost.set()
        again = threading.Timer(SOON_SECONDS, os.kill, (os.getpid(), _received[0]))
        again.daemon = True
        again.start()

    return hook


def _end_at_once(number: int, frame: FrameType | None) -> None:
    say(signal.Signals(number))
    os._exit(CODES[signal.Signals(number)])


def _watch(hearing: socket.socket) -> None:
    """Wait for a signal, then for the end of `run_stoppably`; end the process where that does not come."""
    with hearing:
        while heard := hearing.recv(1):
            if heard[0] in CODES:
                break
        else:
            return
        number = signal.Signals(heard[0])
        hearing.setblocking(True)
        while select.select([hearing], [], [], SECONDS)[0]:
            if not hearing.recv(64):
                return
        say(number)
        os._exit(CODES[number])


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, CODES)


def _let_signals_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CODES)


def _forget_in_child() -> None:
    """A forked process, such as one that loads data, has no watch, and must not be heard by its parent's."""
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _let_signals_go()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_go, after_in_child=_forget_in_child)
