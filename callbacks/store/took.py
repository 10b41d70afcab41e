"""Time and memory that a stage took, measured while it is built and kept in its manifest."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch

LOOKS_EACH = 0.02
"""Seconds between two looks at the process's memory: shorter peaks may be missed."""


@dataclass
class Took:
    """What the first process took to build a stage.

    Attributes:
        seconds: by the clock.
        processor_seconds: of all its threads, which other programs on the machine do not lengthen.
        memory: bytes above what it held before, at the highest look; on a GPU of the device, else resident.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    memory: int = 0

    def plain(self) -> dict[str, float]:
        """Plain values for a manifest."""
        return asdict(self)

    @staticmethod
    def read(content: Any) -> Took | None:
        """From a manifest; None where it does not say it."""
        if not isinstance(content, Mapping):
            return None
        found = [content.get(name) for name in ("seconds", "processor_seconds", "memory")]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
            return None
        return Took(float(found[0]), float(found[1]), int(found[2]))  # type: ignore[arg-type]


@contextmanager
def measured() -> Iterator[Took]:
    """What happens inside, known when it has ended."""
    took, ended = Took(), threading.Event()
    process = psutil.Process()
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    before = torch.cuda.memory_allocated() if on_gpu else process.memory_info().rss
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    highest = [before]

    def look() -> None:
        while not ended.wait(LOOKS_EACH):
            highest[0] = max(highest[0], process.memory_info().rss)

    looking = threading.Thread(target=look, name="memory", daemon=True)
    if not on_gpu:
        looking.start()
    started, worked = time.monotonic(), time.process_time()
    try:
        yield took
    finally:
        ended.set()
        took.seconds, took.processor_seconds = time.monotonic() - started, time.process_time() - worked
        last = torch.cuda.max_memory_allocated() if on_gpu else process.memory_info().rss
        took.memory = max(highest[0], last) - before
