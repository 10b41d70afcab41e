"""Remains of an unfinished entry after a kill: gone on from where they are sound, else cleared away with a word."""

from __future__ import annotations

from pathlib import Path

from twinlens.callbacks.store.checksums import CHECKS, checksums_hold, files_below, read_note
from twinlens.callbacks.store.files import remove, write_json
from twinlens.callbacks.store.manifest import MANIFEST

NOTE = ".begun.json"
"""In an unfinished entry: whose it is and which launch works on it. It moves with the folder, whose name may change."""
FOLDERS = frozenset(
    {"shards", "checkpoints", "model", "epochs", "dataset", "train", "validation", "test", "train_summary",
     "train_tokens"}
)  # fmt: skip
"""Names that are folders in entries; a file of such a name is in the way."""
UNFINISHED = ".partial"


def begin(partial: Path, fingerprint: str, launch: str) -> None:
    """Make the folder of an unfinished entry, or make sure that what is there can be gone on from.

    A folder of another entry is removed, and one with weights that changed, of which all else was made. So is what
    stands in the way inside: links, pipes, folders with names of files and files with names of folders. What shards,
    rows and checkpoints say is checked by those who go on from them.

    Args:
        partial: the folder; this process holds the entry's lock.
        fingerprint: of the entry.
        launch: token of the run, whose other processes may join from now on.

    Raises:
        OSError: it cannot be written.
    """
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        _say(partial, "is no folder")
        remove(partial)
    elif partial.is_dir() and any(partial.iterdir()) and _owner(partial) != fingerprint:
        _say(partial, "is not of this entry")
        remove(partial)
    elif any(not checksums_hold(noted.parent) for noted in partial.rglob(CHECKS)):
        _say(partial, "holds weights that have changed")
        remove(partial)
    partial.mkdir(parents=True, exist_ok=True)
    for path in _in_the_way(partial):
        _say(path, "is in the way")
        remove(path)
    write_json(partial / NOTE, {"entry": fingerprint, "launch": launch})


def is_begun(partial: Path, fingerprint: str, launch: str) -> bool:
    """Whether the first process of a launch has begun an entry, so that others may join."""
    return read_note(partial / NOTE) == {"entry": fingerprint, "launch": launch}


def _owner(partial: Path) -> object:
    """Fingerprint of the entry that a folder was begun for; one that was all but finished says it itself."""
    note = read_note(partial / NOTE) or read_note(partial / MANIFEST)
    return note.get("entry", note.get("fingerprint"))


def _in_the_way(partial: Path) -> list[Path]:
    files = [path for _, path in files_below(partial)]
    found = [path for path in files if path.is_symlink() or not path.is_file() or path.name in FOLDERS]
    folders = [path for path in sorted(partial.rglob("*")) if path.is_dir() and not path.is_symlink()]
    return found + [path for path in folders if path.suffix and path.suffix != UNFINISHED]


def _say(path: Path, what: str) -> None:
    print(f"{path} {what}: removed, and what it held is computed again", flush=True)
