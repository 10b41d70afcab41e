"""Manifest of a finished store entry: its causes, its purpose, its files, its last use."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twinlens.callbacks.store import row_files
from twinlens.callbacks.store.files import write_json
from twinlens.callbacks.store.formats import FORMAT, MANIFEST_FORMAT, require_known_format

MANIFEST = "manifest.json"
USED = "used"
"""An empty file whose modification time is that of the entry's last use."""
NOT_READ = "shards"
"""Folder of an entry that only a build reads."""


def write_manifest(
    folder: Path, stage: str, fingerprint: str, inputs: Mapping[str, Any], labels: Mapping[str, Any]
) -> None:
    """Describe a complete entry before it is renamed to its final name.

    A process that was killed before the renaming has left its own description there, which is none of the files.

    Args:
        folder: the entry's files.
        stage, fingerprint: its place in the store.
        inputs: all that the fingerprint covers.
        labels: what a person knows it by (model, data, method, seed …); no part of the fingerprint.
    """
    files = {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": _own_sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST and NOT_READ not in file.relative_to(folder).parts
    }
    manifest = {
        FORMAT: MANIFEST_FORMAT,
        "stage": stage,
        "fingerprint": fingerprint,
        "created": time.time(),
        "labels": {name: value for name, value in labels.items() if value is not None},
        "inputs": dict(inputs),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, empty where it cannot be read."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def damage_of(folder: Path) -> str | None:
    """What is wrong with an entry: empty where nothing is, None where there is no finished entry.

    Sizes are compared always, contents where a file is younger than the manifest, so that opening a large entry costs
    nothing and a file that somebody wrote to is found. Names the file that is missing, cut or altered, or the rows.

    Raises:
        UserError: a later version has written the entry in a format that this one does not know.
    """
    try:
        written = (folder / MANIFEST).stat().st_mtime
    except OSError:
        return None
    manifest = read_manifest(folder)
    if not manifest:
        return f"{MANIFEST} cannot be read"
    require_known_format(folder / MANIFEST, manifest, MANIFEST_FORMAT)
    rows_changed = False
    for name, known in manifest.get("files", {}).items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            return f"{name} is missing"
        if size != known["size"]:
            return f"{name} has {size} bytes instead of {known['size']}"
        if file.stat().st_mtime > written:
            if known["sha256"] is None:
                rows_changed = True
            elif _sha256(file) != known["sha256"]:
                return f"the content of {name} has changed"
    return row_files.damage_of_rows(folder) if rows_changed else ""


def note_use(folder: Path) -> None:
    """Note that a finished entry is read now."""
    with suppress(OSError):  # a store that may only be read is read without a trace
        (folder / USED).touch()


def written_after(folder: Path, moment: float) -> bool:
    """Whether an entry was finished after a moment, in seconds since 1970."""
    return float(read_manifest(folder).get("created", 0.0)) >= moment


def last_use(folder: Path) -> float:
    """Seconds since 1970 of an entry's last use; of its last change where it is not finished."""
    for name in (USED, MANIFEST):
        if (folder / name).is_file():
            return (folder / name).stat().st_mtime
    return max((file.lstat().st_mtime for file in [folder, *folder.rglob("*")]), default=0.0)


def _own_sha256(file: Path) -> str | None:
    """None for an array whose rows have check words of their own: it is not read once more as a whole."""
    return None if file.suffix == row_files.SUFFIX else _sha256(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
