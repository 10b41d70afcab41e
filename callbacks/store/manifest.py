"""Manifest of a finished store entry: its causes, its purpose, its files, its last use.

An entry is what its manifest says: it lies under the fingerprint that stands there, which is that of the inputs that
stand there, and has the files that stand there, with their content. That is checked when a process first reads the
entry, and again where a file's inode, size or one of its times has changed since.
"""

from __future__ import annotations

import math
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinlens.callbacks.processes.launch import Launch
from twinlens.callbacks.store import row_files
from twinlens.callbacks.store.checksums import checksum_of, files_below, read_note
from twinlens.callbacks.store.files import write_json
from twinlens.callbacks.store.fingerprints import fingerprint_of, without_modules
from twinlens.callbacks.store.formats import FORMAT, MANIFEST_FORMAT, require_known_format
from twinlens.callbacks.store.took import Took

MANIFEST = "manifest.json"
USED = "used"
"""An empty file whose modification time is that of the entry's last use."""
NOT_READ = "shards"
"""Folder of an entry that only a build reads."""


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest, of which whatever is no such value counts as not there.

    Attributes:
        stage, fingerprint: the entry's place.
        created: seconds since 1970 by the clock of the machine that wrote it.
        launch: token of the run that wrote it.
        labels: what a person knows the entry by.
        inputs: all that the fingerprint covers.
        files: name → size in bytes and checksum, None for arrays whose rows have check words.
        took: time and memory of its building; None: it does not say it, or more than one run has built it.
    """

    stage: str
    fingerprint: str
    created: float
    launch: str
    labels: dict[str, Any]
    inputs: dict[str, Any]
    files: dict[str, tuple[int, str | None]]
    took: Took | None = None


def write_manifest(
    folder: Path,
    stage: str,
    fingerprint: str,
    inputs: Mapping[str, Any],
    labels: Mapping[str, Any],
    launch: str = "",
    took: Took | None = None,
) -> None:
    """Describe a complete entry before it is renamed to its final name.

    A process that was killed before the renaming has left its own description there, which is none of the files.

    Args:
        folder: the entry's files.
        stage, fingerprint: its place in the store.
        inputs: all that the fingerprint covers, plain values as JSON has them.
        labels: what a person knows it by (model, data, method, seed …); no part of the fingerprint.
        launch: token of the run.
        took: time and memory of its building, where one run has built all of it.
    """
    manifest = {
        FORMAT: MANIFEST_FORMAT,
        "stage": stage,
        "fingerprint": fingerprint,
        "created": time.time(),
        "launch": launch,
        "labels": {name: value for name, value in labels.items() if value is not None},
        **({} if took is None else {"took": took.plain()}),
        "inputs": without_modules(inputs),  # as they were hashed: a class may move
        "files": {
            name: {"size": path.stat().st_size, "xxh3": _own_checksum(path)}
            for name, path in _content(folder).items()
            if not _is_hidden(name)
        },
    }
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, None where it cannot be read or is none."""
    content = read_note(folder / MANIFEST)
    files = content.get("files")
    if not isinstance(files, dict) or not isinstance(content.get("inputs"), dict):
        return None
    known = {name: _size_and_checksum(value) for name, value in files.items()}
    if None in known.values():
        return None
    created, labels = content.get("created"), content.get("labels")
    usable = isinstance(created, int | float) and math.isfinite(created) and abs(created) < 1e11
    return Manifest(
        stage=str(content.get("stage")),
        fingerprint=str(content.get("fingerprint")),
        created=float(created) if usable else 0.0,  # type: ignore[arg-type]
        launch=str(content.get("launch")),
        labels=labels if isinstance(labels, dict) else {},
        inputs=content["inputs"],
        files={name: value for name, value in known.items() if value is not None},
        took=Took.read(content.get("took")),
    )


def damage_of(folder: Path) -> str | None:
    """What is wrong with an entry: empty where nothing is, None where there is no finished entry.

    Names the file that is missing, cut, altered or none of the entry's, or the rows.

    Raises:
        UserError: a later version has written the entry in a format that this one does not know.
    """
    try:
        state = _state_of(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return None if folder.is_file() else f"it cannot be read: {error.strerror}"
    seen = _SEEN.get(folder)
    if seen is None or seen[0] != state:
        seen = _SEEN[folder] = state, _found_damage(folder)
    return seen[1]


def note_use(folder: Path) -> None:
    """Note that a finished entry is read now."""
    with suppress(OSError):  # a store that may only be read is read without a trace
        (folder / USED).touch()


def written_by(folder: Path, launch: Launch) -> bool:
    """Whether an entry was finished by a run."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.launch != launch.token:
        return False
    return launch.alone or manifest.created >= launch.started


def last_use(folder: Path) -> float:
    """Seconds since 1970 of an entry's last use; of its last change where it is not finished."""
    for name in (USED, MANIFEST):
        if (folder / name).is_file():
            return (folder / name).stat().st_mtime
    return max((file.lstat().st_mtime for file in [folder, *folder.rglob("*")]), default=0.0)


State = tuple[tuple[str, int, int, int, int], ...]

_SEEN: dict[Path, tuple[State, str]] = {}
"""Entries that this process has checked: the state of their files then, and what was wrong with them."""


def _state_of(folder: Path) -> State:
    """Name, size, inode and times of each of an entry's files; nobody can set the last of these, ctime.

    Raises:
        FileNotFoundError: there is no manifest.
        OSError: the folder cannot be read.
    """
    (folder / MANIFEST).lstat()
    found = {MANIFEST: folder / MANIFEST, **_content(folder)}
    states = [(name, path.stat() if path.exists() else path.lstat()) for name, path in found.items()]
    return tuple((name, s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for name, s in states)


def _content(folder: Path) -> dict[str, Path]:
    """An entry's own files by name."""
    return {
        name: path
        for name, path in files_below(folder)
        if name not in (MANIFEST, USED) and NOT_READ not in name.split("/")
    }


def _found_damage(folder: Path) -> str:
    content = read_note(folder / MANIFEST)
    if isinstance(content.get(FORMAT, 0), int):  # another value is damage
        require_known_format(folder / MANIFEST, content, MANIFEST_FORMAT)
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{MANIFEST} {'is of an earlier version' if _is_of_before(folder) else 'cannot be read'}"
    if (manifest.stage, manifest.fingerprint) != (folder.parent.name, folder.name):
        return f"its {MANIFEST} is that of {manifest.stage}/{manifest.fingerprint}"
    if fingerprint_of(manifest.inputs) != folder.name:
        return f"the inputs in its {MANIFEST} are not those of its name"
    try:
        return _damaged_file(folder, manifest)
    except OSError as error:
        return f"{_within(folder, error.filename)} cannot be read: {error.strerror}"


def _damaged_file(folder: Path, manifest: Manifest) -> str:
    content = _content(folder)
    for name, (size, checksum) in manifest.files.items():
        state = content[name].stat() if name in content and content[name].exists() else None
        if state is None or not stat.S_ISREG(state.st_mode):
            return f"{name} is missing"
        if state.st_size != size:
            return f"{name} has {state.st_size} bytes instead of {size}"
        if checksum is not None and checksum_of(content[name]) != checksum:
            return f"the content of {name} has changed"
    strange = [name for name in content if name not in manifest.files and not _is_hidden(name)]
    if strange:
        return f"{strange[0]} is none of its files"
    if any(checksum is None for _, checksum in manifest.files.values()):
        return row_files.damage_of_rows(folder)
    return ""


def _is_hidden(name: str) -> bool:
    """Whether a file is one that systems and libraries leave for themselves."""
    return any(part.startswith(".") for part in name.split("/"))


def _size_and_checksum(value: Any) -> tuple[int, str | None] | None:
    """None where a manifest says something else of a file; those of before said it in other words."""
    if not isinstance(value, dict) or "xxh3" not in value or not isinstance(value.get("size"), int):
        return None
    checksum = value["xxh3"]
    return (value["size"], checksum) if checksum is None or isinstance(checksum, str) else None


def _is_of_before(folder: Path) -> bool:
    """Whether a manifest is one without the checksums that are compared now."""
    files = read_note(folder / MANIFEST).get("files")
    return isinstance(files, dict) and any(isinstance(value, dict) and "sha256" in value for value in files.values())


def _own_checksum(file: Path) -> str | None:
    """None for an array whose rows have check words of their own: it is not read once more as a whole."""
    return None if file.suffix == row_files.SUFFIX else checksum_of(file)


def _within(folder: Path, name: object) -> str:
    path = Path(str(name))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(name)
