"""Files of a folder by the split that their names say; what is not used is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, listed
from twinlens.data.file_readers import format_of, is_folder, stem_of

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
"""What files of a split are called, in upper or lower case."""
HUB_FOLDER = "data"
"""Where repositories of the Hugging Face hub keep their files."""
_SHARD = re.compile(r"-(\d+)-of-(\d+)(-[0-9a-f]+)?$")


def files_by_split(folder: Path, notes: Notes) -> dict[str, list[Path]]:
    """split → its file, or the numbered shards of it in order, as far as the folder has them.

    A folder without such files is looked for in its sub-folder `data`, as on the hub. Files that are not used are
    named in a note.

    Raises:
        UserError: two files for one split, or shards that are missing.
    """
    patterns = {split: re.compile("|".join(names), re.IGNORECASE) for split, names in SPLIT_NAMES.items()}
    for place in (folder, folder / HUB_FOLDER):
        if not is_folder(place):
            continue
        found = {split: _of_one_split(place, pattern.fullmatch, "data.path") for split, pattern in patterns.items()}
        files = {split: files for split, files in found.items() if files}
        if files:
            say_unused(folder, [file for some in files.values() for file in some], notes)
            return files
    return {}


def only_files(
    folder: Path, pattern: re.Pattern[str], option: str, formats: Mapping[str, str] | None = None
) -> list[Path]:
    """The one readable file in `folder` whose name without endings matches, or its numbered shards; none without one.

    Args:
        folder: where to look, not below it.
        pattern: searched in the name.
        option: what the user set, for the message.
        formats: suffix → the format it is read as, beside those that are known.

    Raises:
        UserError: no such folder, several such files, or shards that are missing.
    """
    if not is_folder(folder, option):
        raise UserError(f"The folder {folder} does not exist, expected the dataset's files: check {option}.")
    return _of_one_split(folder, pattern.search, option, formats)


def say_unused(folder: Path, used: Iterable[Path], notes: Notes) -> None:
    """Name what lies in a folder and in the folders of the files used, hidden files aside, and was not read."""
    taken = {file.resolve() for file in used}
    for place in sorted({folder, *(file.parent for file in used if folder in file.parents)}):
        left = [
            entry.name + ("/" if entry.is_dir() else "")
            for entry in sorted(place.iterdir())
            if not entry.name.startswith(".")
            and entry.resolve() not in taken
            and not any(entry in file.parents for file in used)
        ]
        if left:
            notes.say(f"not used in {place}, since no split is called so: {listed(left)}")


def _of_one_split(
    folder: Path,
    matches: Callable[[str], object],
    option: str,
    formats: Mapping[str, str] | None = None,
) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read ({error.strerror}), expected the dataset's files: check {option}."
        ) from None
    readable = [file for file in entries if format_of(file, formats) is not None and file.is_file()]
    named = [file for file in readable if matches(_SHARD.sub("", stem_of(file)))]
    if len(named) < 2:
        _refuse_missing_shards(named)
        return named
    kinds = {(_SHARD.sub("", stem_of(file)), format_of(file, formats), _shard_of(file) is None) for file in named}
    if len(kinds) > 1 or any(_shard_of(file) is None for file in named):
        raise UserError(
            f"{folder} holds {listed([file.name for file in named])} for one split, expected one file: move the "
            f"others away or name the files, as in data.path={{train: FILE, validation: FILE, test: FILE}}."
        )
    _refuse_missing_shards(named)
    return sorted(named, key=lambda file: _shard_of(file) or (0, 0))


def _shard_of(file: Path) -> tuple[int, int] | None:
    found = _SHARD.search(stem_of(file))
    return (int(found[1][:9]), int(found[2][:9])) if found else None


def _refuse_missing_shards(files: Sequence[Path]) -> None:
    shards = [shard for file in files if (shard := _shard_of(file)) is not None]
    if not shards:
        return
    total = shards[0][1]
    numbers = sorted(number for number, _ in shards)
    counted = list(range(total)) if total == len(numbers) else []
    if numbers not in (counted, [number + 1 for number in counted]) or any(of != total for _, of in shards):
        raise UserError(
            f"{files[0].parent} holds {listed([file.name for file in files])}, expected each of the {total} shards "
            f"that {files[0].name} speaks of, once: fetch what is missing, or name one file in data.path."
        )
