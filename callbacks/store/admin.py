"""Looking into the store and clearing it: `store.list=true`, `store.prune=…`, with `yes=true` in earnest."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.store.checksums import files_below
from twinlens.callbacks.store.lock import Lock
from twinlens.callbacks.store.manifest import last_use, read_manifest
from twinlens.callbacks.store.running import running_since

STAGES = (
    "fit",
    "anatomy",
    "examples",
    "factors",
    "projections",
    "gradients",
    "ranks",
    "attribute",
    "retrain",
    "evaluate",
)
"""In the order of a run; other stages of the store follow them."""

_ENTRY = re.compile(r"([0-9a-f]{24})(\.\w+)?")
_AGE = re.compile(r"(\d{1,4})([mhdw])")
_PREFIX = re.compile(r"[0-9a-f]{6,24}")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
SHOWN = 12
"""Signs of a fingerprint in lists: enough to name the entry, and short enough for a terminal."""
_GOING = ".removing"
"""Suffix of an entry that is being removed, so that no reader finds half of it."""


@dataclass(frozen=True)
class Stored:
    """One entry of the store, finished or not.

    Attributes:
        stage, fingerprint: its place.
        path: its folder.
        finished: whether it is a result; otherwise it is what a run began.
        size: bytes of its files.
        created: seconds since 1970, None where it is not finished or does not say it.
        used: seconds since 1970 of the last use, or of the last change where it is not finished.
        labels: what a person knows it by.
        holder: host, pid and start of the process that writes it, unless it is known to have ended.
    """

    stage: str
    fingerprint: str
    path: Path
    finished: bool
    size: int
    created: float | None
    used: float
    labels: dict[str, Any]
    holder: dict[str, Any] | None


def store_command(config: Any) -> dict[str, float]:
    """List or clear the store if the configuration says so, which is then all that happens.

    Returns:
        How many entries the store holds then; empty where the configuration asks for a run.

    Raises:
        UserError: `store.prune` is no age, fingerprint, `all` or `partial`, names nothing in the store, or the store
            cannot be written.
    """
    command = config.get("store") or {}
    chosen = command.get("prune")
    if not command.get("list") and chosen is None:
        return {}
    root = Path(config.paths.store)
    if chosen is not None:
        words = [chosen] if isinstance(chosen, str) else list(chosen)
        prune(root, words, Path(config.paths.output_dir), bool(config.get("yes")))
    left = entries(root)
    if command.get("list"):
        print(format_entries(root, left), flush=True)
    return {"store/entries": len(left)}


def entries(root: Path) -> list[Stored]:
    """Everything in the store, by stage in the order of a run, the one used last first."""
    found = [stored for stage in _stages(root) for stored in _of_stage(stage)]
    return sorted(found, key=lambda entry: (_rank(entry.stage), -entry.used))


def format_entries(root: Path, found: Sequence[Stored], now: float | None = None) -> str:
    """The store as text: one line per entry, totals per stage."""
    if not found:
        return f"{root}: nothing is stored"
    now = time.time() if now is None else now
    lines = [["stage", "fingerprint", "size", "made", "used", "what", "state"]]
    for entry in found:
        made = "" if entry.created is None else _age(now - entry.created)
        name, used = entry.fingerprint[:SHOWN], _age(now - entry.used)
        lines.append([entry.stage, name, size_text(entry.size), made, used, _what(entry), _state(entry)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    totals: dict[str, list[int]] = defaultdict(list)
    for entry in found:
        totals[entry.stage].append(entry.size)
    text += ["", f"{root}: {_count(len(found), 'entry')}, {size_text(sum(entry.size for entry in found))}"]
    text += [f"  {stage}: {_count(len(sizes), 'entry')}, {size_text(sum(sizes))}" for stage, sizes in totals.items()]
    return "\n".join(text)


def prune(root: Path, chosen: Sequence[str], output_dir: Path, yes: bool) -> None:
    """Remove entries that no run holds and say what became free; or only show what that would be.

    An entry stays while a living run writes it, and, since a run that is still computing reads the results of its
    earlier stages, also where it was used after the start of any run that is in progress.

    Args:
        root: the store.
        chosen: `7d`, `12h` …, `all`, `partial` or beginnings of fingerprints (six characters or more).
        output_dir: where run folders lie; those that link to what is removed are named.
        yes: whether to remove; else nothing is changed.

    Raises:
        UserError: see `store_command`.
    """
    found = entries(root)
    selected = {entry.path for choice in chosen for entry in _select(found, choice)}
    starts = [entry.holder.get("started") or 0.0 for entry in found if entry.holder]
    began = running_since(root)
    since = min(starts if began is None else [*starts, began], default=None)
    removed: list[Stored] = []
    for entry in found:
        if entry.path not in selected:
            continue
        reason = _in_use(entry, since) or (_remove(entry) if yes else _written(entry))
        if reason:
            print(f"kept {_named(entry)}: {reason}", flush=True)
        else:
            removed.append(entry)
            if yes:
                print(f"removed {_named(entry)}: {size_text(entry.size)}", flush=True)
    size, count = size_text(sum(entry.size for entry in removed)), f"{_count(len(removed), 'entry')} of {len(found)}"
    if not yes and removed:
        print(format_entries(root, removed), flush=True)
    print(f"{root}: " + (f"{size} freed, {count} removed" if yes else f"{size} in {count} would go"), flush=True)
    runs = runs_linked_to({entry.path.resolve() for entry in removed}, output_dir, root)
    if runs:
        lack = "linked to them, so that files are missing there now" if yes else "link to them and would lack files"
        names = ", ".join(sorted(run.name for run in runs))
        print(f"{_count(len(runs), 'run folder')} in {output_dir} {lack}: {names}", flush=True)
    if not yes and removed:
        print("nothing is removed yet: the same command with yes=true removes this", flush=True)


def runs_linked_to(removed: set[Path], output_dir: Path, store: Path) -> set[Path]:
    """Run folders below `output_dir` with a link into one of the folders in `removed`."""
    runs = set()
    for folder, folders, files in os.walk(output_dir):
        here = Path(folder)
        for name in [*folders, *files]:
            link = here / name
            if link.is_symlink() and removed & {link.resolve(), *link.resolve().parents}:
                runs.add(next((up for up in link.parents if (up / "config.yaml").is_file()), here))
        folders[:] = [name for name in folders if (here / name).resolve() != store.resolve()]
    return runs


def size_text(size: int) -> str:
    """Bytes with a unit of 1000: `812 B`, `1.2 MB`."""
    number, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.0f} {units[0]}" if number >= 99.5 or units[0] == "B" else f"{number:.1f} {units[0]}"


def _stages(root: Path) -> list[Path]:
    stages = [folder for folder in sorted(root.iterdir()) if folder.is_dir()] if root.is_dir() else []
    return [folder for folder in stages if not folder.name.startswith(".")]  # signs of processes are no stage


def _of_stage(stage: Path) -> Iterator[Stored]:
    """The entries of one stage; links and other files are none of the store's."""
    for path in sorted(stage.iterdir()):
        match = _ENTRY.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir():
            continue
        fingerprint, suffix = match.groups()
        manifest = read_manifest(path) if suffix is None else None
        try:
            size = sum(file.lstat().st_size for _, file in files_below(path))
            used = last_use(path)
        except OSError:
            continue  # finished or removed by another run in this moment
        created, labels = (manifest.created, manifest.labels) if manifest else (None, {})
        holder = _lock_of(path, fingerprint).holder()
        yield Stored(stage.name, fingerprint, path, suffix is None, size, created, used, labels, holder)


def _lock_of(path: Path, fingerprint: str) -> Lock:
    """The entry's lock, which is not waited for while somebody living holds it."""
    lock: Lock = Lock(path.with_name(f"{fingerprint}.lock"), until=lambda: lock.shows_life())
    return lock


def _rank(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def _select(found: Sequence[Stored], choice: str) -> list[Stored]:
    """Entries that one word of `store.prune` means."""
    age = _AGE.fullmatch(choice)
    if choice == "all":
        return list(found)
    if choice == "partial":
        return [entry for entry in found if not entry.finished]
    if age:
        since = time.time() - int(age[1]) * _SECONDS[age[2]]
        return [entry for entry in found if entry.used <= since]
    if not _PREFIX.fullmatch(choice):
        raise UserError(
            f"store.prune={choice} is none of what can be removed: expected an age such as 7d or 12h, all, partial, or "
            "at least the first six characters of a fingerprint; store.list=true shows them."
        )
    named = [entry for entry in found if entry.fingerprint.startswith(choice)]
    if not named:
        raise UserError(
            f"store.prune={choice}: the store has no such entry; expected the beginning of a fingerprint: "
            "store.list=true shows them."
        )
    return named


def _in_use(entry: Stored, running_since: float | None) -> str:
    """Why an entry must stay that nobody writes, empty where nothing reads it."""
    if running_since is not None and entry.finished and entry.used >= running_since:
        return "used since the start of a run that is not finished"
    return ""


def _written(entry: Stored) -> str:
    """By whom an entry is being written that is only looked at."""
    return f"being written by {_process(entry.holder)}" if entry.holder else ""


def _remove(entry: Stored) -> str:
    """Remove an entry as its only owner; the reason where it could not be owned."""
    lock = _lock_of(entry.path, entry.fingerprint)
    with lock as owned:
        if not owned:
            return f"being written by {_process(lock.holder() or {})}"
        going = entry.path.with_name(entry.fingerprint + _GOING)
        try:
            if going != entry.path:
                shutil.rmtree(going, ignore_errors=True)
                entry.path.rename(going)
                if entry.finished and last_use(going) > entry.used:
                    going.rename(entry.path)
                    return "a run has just read it"
            shutil.rmtree(going)
        except FileNotFoundError:
            return "another run has just finished or removed it"
        except OSError as error:
            raise UserError(
                f"{entry.path} cannot be removed ({error.strerror}); expected a store that you may write: ask "
                "its owner."
            ) from error
    return ""


def _state(entry: Stored) -> str:
    return _written(entry) or ("" if entry.finished else "partial: the same command goes on")


def _process(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'another machine')}"


def _what(entry: Stored) -> str:
    return " ".join(f"{name}={value}" for name, value in entry.labels.items())


def _named(entry: Stored) -> str:
    what = _what(entry) or ("" if entry.finished else "partial")
    return f"{entry.stage} {entry.fingerprint}" + (f" ({what})" if what else "")


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"
