"""Checksums of what is kept: a fast hash finds what a disk or a copy has harmed; it is no guard against intent."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from twinlens.callbacks.store.files import write_json

CHECKS = ".checks.json"
"""In a folder that is not an entry yet: the checksums of its files. Hidden, so that no entry keeps it."""
LARGEST_NOTE = 2**26
"""Bytes of a JSON file that is read; what is longer was not written here."""
READ_AT_ONCE = 2**20


def checksum_of(file: Path) -> str:
    """XXH3 of a file's content, 128 bits in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    digest = xxhash.xxh3_128()
    with file.open("rb") as opened:
        while block := opened.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Relative name and path of everything below a folder that is no folder itself, in order of name.

    Raises:
        OSError: a folder cannot be read.
    """

    def fails(error: OSError) -> None:
        raise error

    found = []
    for where, folders, files in os.walk(folder, onerror=fails):
        here = Path(where)
        found += [here / name for name in (*files, *(name for name in folders if (here / name).is_symlink()))]
    for path in sorted(found):
        yield path.relative_to(folder).as_posix(), path


def read_note(file: Path) -> dict[str, Any]:
    """A small JSON file with names and values; empty where it cannot be read, is no file or holds something else."""
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_NOTE:  # a pipe would be waited for
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def note_checksums(folder: Path) -> None:
    """Leave the checksums of a folder's files in it, for `checksums_hold`."""
    write_json(folder / CHECKS, {name: checksum_of(path) for name, path in _noted(folder)})


def checksums_hold(folder: Path) -> bool:
    """Whether a folder has exactly the files that `note_checksums` found there, unchanged."""
    noted = read_note(folder / CHECKS)
    try:
        return bool(noted) and noted == {name: checksum_of(path) for name, path in _noted(folder)}
    except OSError:
        return False


def _noted(folder: Path) -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, path in files_below(folder) if path.name != CHECKS)
