"""Files of a corpus: one file, a folder of them at any depth, or a dataset repository of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, listed, quoted
from twinlens.data.file_readers import (
    JSON_TEXTS,
    JSONL_TEXTS,
    PLAIN_TEXT,
    READERS,
    FileRows,
    Need,
    format_of,
    is_folder,
    read_files,
    user_path,
)
from twinlens.data.split_files import files_by_split

CORPUS_FORMATS = {".json": JSON_TEXTS, ".jsonl": JSONL_TEXTS, ".txt": PLAIN_TEXT, ".md": PLAIN_TEXT}
"""Suffix → format, where a corpus has another one than a table."""
CARD = "README.md"
"""What every repository of the hub says of itself, which is none of its texts."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_corpus(path: str, option: str, split: str, notes: Notes, need: Need | None = None) -> FileRows:
    """Rows of all files that a path leads to, one behind the other, a plain text file as one row `text`.

    Args:
        path: a file, a folder, of which every readable file counts in the order of their paths, or `owner/name` on the
            hub, where files of that split count if any are called so.
        option: what the user set, for messages.
        split: of the hub's repository.
        notes: is told what was read, and of a folder what was not.
        need: how much of it is needed; None: all.

    Raises:
        UserError: nothing there, nothing readable, or content that is not what its suffix says.
    """
    place = user_path(path, option)
    if not place.exists() and _HUB_ID.fullmatch(str(path)) and format_of(place, CORPUS_FORMATS) is None:
        place = _from_hub(str(path), option)
        files = files_by_split(place, notes).get(split) or _readable(place, option, notes)
    elif is_folder(place, option):
        files = _readable(place, option, notes)
    else:
        files = [place]
    found = read_files(files, option, CORPUS_FORMATS, notes, need)
    if not found.rows:
        raise UserError(f"{option}={path} holds no row, expected at least one text: check {option}.")
    return found


def _readable(folder: Path, option: str, notes: Notes) -> list[Path]:
    try:
        entries = [path for path in sorted(folder.rglob("*")) if not _hidden(path, folder) and path.is_file()]
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}), expected files of texts: check {option}."
        ) from None
    files = [path for path in entries if format_of(path, CORPUS_FORMATS) is not None]
    if not files:
        raise UserError(
            f"The folder {folder} has no file that ends with {', '.join({**READERS, **CORPUS_FORMATS})}, expected "
            f"texts: check {option}."
        )
    left = [str(path.relative_to(folder)) for path in entries if path not in set(files)]
    if left:
        notes.say(f"not read in {folder}, since their endings name no format: {listed(left)}")
    return files


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _from_hub(name: str, option: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [f"*{suffix}{packed}" for suffix in {**READERS, **CORPUS_FORMATS} for packed in ("", ".gz")]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted, ignore_patterns=CARD))
    except Exception as error:  # whichever HTTP client the hub's library uses, with errors of its own
        raise UserError(
            f"{option}={quoted(name)} is no file or folder here and could not be downloaded as a dataset of the "
            f"Hugging Face hub ({type(error).__name__}); expected a file, a folder or a dataset that this machine can "
            "reach: correct the path."
        ) from None
