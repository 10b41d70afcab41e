"""Cost of checking stored entries when a run first opens them, beside the demo that made them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from twinlens.callbacks.store.checksums import checksum_of
from twinlens.callbacks.store.manifest import damage_of

SMALL = ("debug=fdr", "data.n_train=60", "data.n_validation=10", "data.n_test=20", "data.n_twins=2")
"""The demo on a handful of rows."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a demo and of checking all that it stored.

    Attributes:
        demo: the whole command, as a user starts it.
        check: every entry, opened for the first time.
        size: bytes that were checked.
    """

    demo: float
    check: float
    size: int


def measure(small: bool) -> Cost:
    """Run the demo in a process of its own and check its store in this one.

    Raises:
        RuntimeError: an entry is damaged, so that not all of it was checked.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = str(Path(__file__).parents[1] / "train.py")
        begun = time.perf_counter()
        subprocess.run([sys.executable, script, *(SMALL if small else ())], cwd=folder, check=True, capture_output=True)
        demo = time.perf_counter() - begun
        entries = sorted(path.parent for path in Path(folder).glob("outputs/store/*/*/manifest.json"))
        begun = time.perf_counter()
        damage = [damage_of(entry) for entry in entries]
        check = time.perf_counter() - begun
        if any(damage) or not entries:
            raise RuntimeError(f"the demo left damaged entries: {damage}")
        files = [
            file for entry in entries for file in entry.rglob("*") if file.is_file() and "shards" not in file.parts
        ]
        return Cost(demo, check, sum(file.stat().st_size for file in files))


def bytes_per_second(size: int) -> float:
    """How fast a file of so many bytes is checked that lies in the system's cache."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(size))
        file.flush()
        begun = time.perf_counter()
        checksum_of(Path(file.name))
        return size / (time.perf_counter() - begun)
