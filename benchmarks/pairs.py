"""Timing in interleaved pairs: ours, peer, ours, peer …, so that a slow spell of the machine meets both."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
"""What `timed` may read; processor time says on a busy machine what wall time says on a quiet one, of one thread."""
_clock = ["wall"]


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """What a run returned and how long it took, or would have taken where only a part was run.

    Attributes:
        seconds: of the whole task.
        result: what it computed, for the comparison of values.
        parts: seconds of the parts that were really timed, where `seconds` is scaled up from them.
    """

    seconds: float
    result: Result
    parts: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """All pairs of one comparison.

    Attributes:
        name: of the ratio, as printed.
        ours, peer: seconds of each run, in the order in which they alternated.
        difference: largest relative difference between the two results over all pairs, or None where they are not
            meant to agree.
        tolerance: what `difference` has to stay below.
        note: what was compared with what, for the record.
        peer_parts: seconds of the timed parts of the peer's last run, where its time is scaled up from them.
    """

    name: str
    ours: list[float]
    peer: list[float]
    difference: float | None
    tolerance: float | None
    note: str
    peer_parts: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Peer's time over ours, pair by pair."""
        return [peer / ours for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios: how many times faster ours is."""
        return statistics.median(self.ratios)

    @property
    def agrees(self) -> bool:
        """Whether both computed the same; NaN does not agree."""
        return self.difference is None or self.tolerance is None or self.difference < self.tolerance


def timed(task: Callable[[], Result]) -> Timed[Result]:
    """Run a task once on the clock, which waits for what a CUDA device has been told to do."""
    read = CLOCKS[_clock[0]]
    _wait()
    start = read()
    result = task()
    _wait()
    return Timed(read() - start, result)


def used_clock() -> str:
    """Which of `CLOCKS` is taken."""
    return _clock[0]


def use_clock(name: str) -> None:
    """Take one of `CLOCKS` from now on."""
    _clock[0] = name


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(
    name: str,
    ours: Callable[[], Timed[Result]],
    peer: Callable[[], Timed[Result]],
    n_pairs: int,
    difference: Callable[[Result, Result], float] | None,
    tolerance: float | None,
    note: str,
) -> Comparison:
    """Time interleaved pairs; both sides are expected to have run before, outside the clock."""
    our_times, peer_times, differences = [], [], []
    parts: list[float] = []
    for pair in range(n_pairs):
        left, right = ours(), peer()
        our_times.append(left.seconds)
        peer_times.append(right.seconds)
        parts = right.parts
        if difference is not None:
            differences.append(difference(left.result, right.result))
        progress(f"{name}: pair {pair + 1} of {n_pairs}, {left.seconds:.3f} s against {right.seconds:.3f} s")
    # NaN must win here, as max() would drop it depending on the order
    worst = next((value for value in differences if value != value), max(differences, default=None))
    return Comparison(name, our_times, peer_times, worst, tolerance, note, parts)


def progress(line: str) -> None:
    """One line on stderr; stdout is for the ratios."""
    print(line, file=sys.stderr, flush=True)
