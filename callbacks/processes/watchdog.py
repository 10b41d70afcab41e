"""Several processes stop together: when one has died, the others say so and end, instead of waiting for it for ever."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import subprocess_script

from twinlens.callbacks.processes.heartbeats import are_watched, join_processes
from twinlens.callbacks.processes.launch import RANKS
from twinlens.callbacks.processes.parents import EVERY_SECONDS, GRACE_SECONDS, once_of_ended, watch_parent
from twinlens.callbacks.processes.stopping import received

STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
"""Codes of processes that a signal ended."""

LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
"""What gloo and NCCL say where another process has left them."""
LOST_PEER_SECONDS = 60.0
"""How long such a process may take to end, beyond which the error is told as any other."""

_watching = threading.Event()
_launchers: list[Any] = []
"""What has started the other processes of this run, where this is the first one."""


def watch_processes(trainer: Trainer) -> None:
    """Watch the processes of this run from a thread, from the first Trainer on; nothing for a single process."""
    if trainer.world_size < 2 or _watching.is_set():
        return
    _watching.set()
    if any(name in os.environ for name in RANKS):
        watch_parent(os.getppid(), "what started it")
    elif trainer.global_rank == 0:
        # Lightning's own observer kills this process too, before it could say what is kept
        subprocess_script._launch_process_observer = lambda children: None  # type: ignore[assignment]
        _launchers.append(trainer.strategy.launcher)
        threading.Thread(target=_watch_children, args=(trainer.strategy.launcher,), daemon=True).start()
    else:
        watch_parent(os.getppid())


def watch_started(store: Path) -> None:
    """Watch the processes that torchrun or srun has started beside this one, from signs that they leave in the store;
    nothing where there are none."""
    join_processes(store, _end)


def let_the_watch_speak(error: BaseException) -> None:
    """Wait, after an error, for the sentence about a process that has died: what remains of it here is a broken
    connection, whose own words say nothing. On a busy machine that process may take its time to end."""
    if _watching.is_set() or are_watched():
        lost = any(words in str(error) for words in LOST_PEER)
        time.sleep(LOST_PEER_SECONDS if lost else GRACE_SECONDS + 5 * EVERY_SECONDS)


def _watch_children(launcher: Any) -> None:
    """In the process that started the others: end with them as soon as one has failed."""
    while True:
        time.sleep(EVERY_SECONDS)
        ended = [(rank, child.poll()) for rank, child in enumerate(getattr(launcher, "procs", []), start=1)]
        failed = [(rank, code) for rank, code in ended if code]
        if not failed:
            continue
        rank, code = failed[0]
        if code in STOPPED:
            time.sleep(GRACE_SECONDS)
        if received() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            return  # a signal reached this process, too: it is ending, and says itself what is kept
        end_children()
        own = 143 if code == -signal.SIGTERM else 2 if code < 0 else code
        _end(f"process {rank} of the run ended with code {code}", own)


def end_children() -> None:
    """End the processes that this one has started for its run; what they have finished is whole."""
    for launcher in _launchers:
        for child in getattr(launcher, "procs", []):
            child.kill()


def _end(what: str | None, code: int) -> None:
    """End this process; `what` has become of another one is None where that has been said."""
    line = None if what is None else once_of_ended(what)
    if line is not None:
        print(line, file=sys.stderr, flush=True)
    os._exit(code)  # the main thread may hang in a collective for ever
