"""End processes of runs and sweeps of two processes each: the first, another, all of them, what starts the jobs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults.evidence import differences, numbers_of
from tests.faults.run import COMMAND
from tests.faults.starting import start

RANKS = (*COMMAND, "trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=2", "trainer.limit_train_batches=2")
AT_MOST = 10.0
"""Seconds within which all processes of a command are gone after one of them was told to end."""
WHO = ("first", "other", "all", "sweep")
"""Which process gets the signal; of a sweep, the one that starts its jobs."""


@dataclass
class Ends:
    """What came of ending processes.

    Attributes:
        tried: (who, signal) → how often.
        wrong: whatever is not as it should be.
        slowest: most seconds until all processes of a command were gone.
    """

    tried: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


def processes_of(leader: int) -> list[psutil.Process]:
    """Living processes of the session that a started command leads, those without a parent any more among them."""
    found = []
    for process in psutil.process_iter():
        try:
            in_session = os.getsid(process.pid) == leader
            if in_session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_one(folder: Path, who: str, by: signal.Signals, draw: random.Random, seconds: float, ends: Ends) -> None:
    """Start a command, send a signal after a random time and see to it that nothing remains."""
    sweep = ("-m", "seed=0,1", "hydra.sweep.dir=sweep")
    process = start(folder, *(sweep if who == "sweep" else ("hydra.run.dir=run",)), *RANKS)
    moment = time.monotonic() + draw.uniform(0.1, 1.0) * seconds
    while process.poll() is None and time.monotonic() < moment:
        time.sleep(0.02)
    if process.poll() is not None:
        return  # it ended before its moment came
    others = [other for other in processes_of(process.pid) if other.pid != process.pid]
    if who == "other" and not others:
        who = "first"
    targets = {"other": others[:1], "all": [*others, psutil.Process(process.pid)]}
    for target in targets.get(who, [psutil.Process(process.pid)]):
        try:
            target.send_signal(by)
        except psutil.NoSuchProcess:
            continue
    name = f"{who} {by.name}"
    ends.tried[name] += 1
    sent = time.monotonic()
    while process.poll() is None or processes_of(process.pid):
        if time.monotonic() - sent > 2 * AT_MOST:
            break
        time.sleep(0.05)
    took = time.monotonic() - sent
    ends.slowest = max(ends.slowest, took)
    for left in processes_of(process.pid):
        ends.wrong.append(f"{folder.name} {name}: process {left.pid} lives after {took:.1f} s")
        left.kill()
    if took > AT_MOST:
        ends.wrong.append(f"{folder.name} {name}: {took:.1f} s")
    if process.wait() in (0, 1):
        ends.wrong.append(
            f"{folder.name} {name}: ended with {process.returncode}: {(folder / 'err').read_text()[-800:]}"
        )


def end_ranks(count: int, seed: int, root: Path) -> Ends:
    """End so many commands; the next one goes on with each store, and has the numbers of an undisturbed run."""
    draw, ends = random.Random(seed), Ends()
    undisturbed = root / "undisturbed"
    undisturbed.mkdir()
    begun = time.monotonic()
    assert start(undisturbed, *RANKS, "hydra.run.dir=run").wait(timeout=400) == 0, (undisturbed / "err").read_text()
    seconds = time.monotonic() - begun
    expected = numbers_of(undisturbed / "run")
    number = 0
    while sum(ends.tried.values()) < count:
        folder = root / f"command{number}"
        folder.mkdir()
        for _ in range(draw.randint(1, 4)):
            who, by = draw.choice(WHO), draw.choice((signal.SIGKILL, signal.SIGTERM))
            end_one(folder, who, by, draw, seconds, ends)
            if sum(ends.tried.values()) == count:
                break
        last = start(folder, *RANKS, "hydra.run.dir=last").wait(timeout=400)
        told = (folder / "err").read_text()
        if last != 0 or "Traceback" in told:
            ends.wrong.append(f"{folder.name}: ended with {last}: {told[-1500:]}")
        else:
            ends.wrong += [f"{folder.name}: {line}" for line in differences(expected, numbers_of(folder / "last"))[:3]]
        number += 1
    return ends
