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

from twinlens.callbacks.processes.heartbeats import are_watched, join_processes
from twinlens.callbacks.processes.launch import RANKS

EVERY_SECONDS = 0.2
GRACE_SECONDS = 5.0
"""How long a process may take to end by itself after the first one has, or after Ctrl-C reached another one first."""
INTERRUPTED = (130, -signal.SIGINT)

_watching = threading.Event()


def watch_processes(trainer: Trainer) -> None:
    """Watch the processes of this run from a thread, from the first Trainer on; nothing for a single process."""
    if trainer.world_size < 2 or _watching.is_set():
        return
    _watching.set()
    if trainer.global_rank == 0 and not any(name in os.environ for name in RANKS):
        threading.Thread(target=_watch_children, args=(trainer.strategy.launcher,), daemon=True).start()
    else:
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def watch_started(store: Path) -> None:
    """Watch the processes that torchrun or srun has started beside this one, from signs that they leave in the store;
    nothing where there are none."""
    join_processes(store, _end)


def let_the_watch_speak() -> None:
    """Wait, after an error, for the sentence about a process that has died: what remains of it here is a broken
    connection, whose own words say nothing."""
    if _watching.is_set() or are_watched():
        time.sleep(GRACE_SECONDS + 5 * EVERY_SECONDS)


def _watch_children(launcher: Any) -> None:
    """In the process that started the others: end with them as soon as one has failed."""
    while True:
        time.sleep(EVERY_SECONDS)
        ended = [(rank, child.poll()) for rank, child in enumerate(getattr(launcher, "procs", []), start=1)]
        failed = [(rank, code) for rank, code in ended if code]
        if not failed:
            continue
        rank, code = failed[0]
        if code in INTERRUPTED:
            time.sleep(GRACE_SECONDS)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            return  # Ctrl-C reached this process: it is ending, and says itself what is kept
        for child in launcher.procs:
            child.kill()
        _end(f"process {rank} of the run ended with code {code}", code if code > 0 else 1)


def _watch_parent(parent: int) -> None:
    """In a process that was started by the first one: end when that has ended and this one does not by itself."""
    while os.getppid() == parent:
        time.sleep(EVERY_SECONDS)
    time.sleep(GRACE_SECONDS)
    started = "what started it" if any(name in os.environ for name in RANKS) else "the first process of the run"
    _end(f"{started} ({parent}) has ended", 1)


def _end(what: str | None, code: int) -> None:
    """End this process; `what` has become of another one is None where that has been said."""
    if what is not None:
        print(
            f"stopped: {what}, so the others stop too; finished stages and shards are kept, and the same command goes "
            "on",
            file=sys.stderr,
            flush=True,
        )
    os._exit(code)  # the main thread may hang in a collective for ever
