"""Evidence of a run: its numbers, to be compared with an undisturbed run, and the work that was done twice."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

TOLERANCE = 1e-6


def numbers_of(run: Path) -> dict[str, Any]:
    """Everything that must not depend on kills: results, metrics but for times, all scores, all predictions."""
    metrics = json.loads((run / "metrics.json").read_text())
    found: dict[str, Any] = {
        "results.csv": list(csv.reader((run / "results.csv").open())),
        "metrics.json": {name: value for name, value in metrics.items() if not name.startswith("time/")},
        "report.html": (run / "report.html").is_file(),
        "model": sorted(path.name for path in (run / "model").iterdir()),
    }
    for part in ("scores", "examples"):
        for state in _states(run / part):
            table = datasets.load_from_disk(str(state.parent)).with_format("arrow")[:]
            found[state.parent.relative_to(run).as_posix()] = table.to_pydict()
    return found


def _states(folder: Path) -> list[Path]:
    """state.json of every dataset below a folder, through links."""
    found = []
    for path in sorted(folder.iterdir()):
        if (path / "state.json").is_file():
            found.append(path / "state.json")
        elif path.is_dir():
            found += _states(path)
    return found


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two values differ: numbers by more than 1e-6 of their size, everything else at all."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line for n, pair in enumerate(zip(one, other, strict=True)) for line in differences(*pair, f"{where}[{n}]")
        ]
    if isinstance(one, float) and isinstance(other, float):
        same = math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (one != one and other != other)
    else:
        same = one == other
    return [] if same else [f"{where}: {one!r} is {other!r}"]


@dataclass(frozen=True)
class Redone:
    """What a command killed `kills` times began more than once, over all its attempts.

    Attributes:
        shards: shards begun again.
        worst_pass: the most that one pass began again.
        epochs: epochs begun again.
    """

    shards: int
    worst_pass: int
    epochs: int


def redone(trace: Path) -> Redone:
    """Count in the trace of all attempts (see `process.note_beginnings`)."""
    shards: Counter[tuple[str, str]] = Counter()
    epochs: Counter[str] = Counter()
    batches = set()
    attempt = 0
    for line in trace.read_text().splitlines():
        kind, *words = line.split()
        attempt += kind == "start"
        if kind == "epoch":
            epochs[words[0]] += 1
        elif kind == "shard" and (attempt, *words) not in batches:
            batches.add((attempt, *words))
            shards[words[0], words[1]] += 1
    passes: Counter[str] = Counter()
    for (name, _), times in shards.items():
        passes[name] += times - 1
    return Redone(sum(passes.values()), max(passes.values(), default=0), sum(n - 1 for n in epochs.values()))


def last_stage(trace: Path) -> str:
    """The stage that had begun last, `start` before the first one."""
    lines = trace.read_text().splitlines() if trace.is_file() else []
    for line in reversed(lines):
        kind, *words = line.split()
        if kind in ("stage", "start"):
            return words[0] if words else kind
    return "start"


def finished(store: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of everything in the store that was complete: finished entries and finished shards.

    A finished shard of an unfinished entry stands under the name it will have when the entry is finished.
    """
    found = {}
    for pattern in ("*/*/manifest.json", "*/*/shards/shard_*.safetensors"):
        for path in store.glob(pattern):
            if pattern.endswith("manifest.json") and path.parent.suffix == ".partial":
                continue
            state = path.stat()
            found[path.relative_to(store).as_posix().replace(".partial/", "/")] = (state.st_ino, state.st_mtime_ns)
    return found


def leftovers(folder: Path) -> list[str]:
    """Files of unfinished work: none may remain once a command has ended well."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name.endswith((".partial", ".lock", ".ckpt")) or path.name.startswith(".tmp")
    )
