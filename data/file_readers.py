"""Readers for JSON, JSONL, CSV, TSV and Parquet, with gzip or without: rows as dictionaries, mistakes with their place.

Everything that a user's files can hold is bounded: rows, characters of a text, of a line and of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, listed, quoted
from twinlens.data.delimited_files import MOST_IN_TEXT, Located, csv_rows, tsv_rows, unquoted_tsv_rows
from twinlens.data.json_files import json_rows, jsonl_rows
from twinlens.data.parquet_files import parquet_rows, too_many_rows
from twinlens.data.text_files import PACKED, DataFile, whole_text_rows

Row = dict[str, Any]
MOST_ROWS = 2_000_000
"""Of one file."""
MOST_DIVIDED = 200_000
"""Rows of a file that is cut into splits of which only the first few rows are used."""
MOST_NESTED = 100
"""Lists and objects within each other in one row."""
UNQUOTED_TSV = ".tsv, unquoted"
"""The format of tab-separated files that were published without quoting: a quotation mark is text."""
READERS: dict[str, Callable[[DataFile, Notes], Iterator[Located]]] = {
    ".json": json_rows,
    ".jsonl": jsonl_rows,
    ".csv": csv_rows,
    ".tsv": tsv_rows,
    ".parquet": parquet_rows,
}
JSON_TEXTS, JSONL_TEXTS, PLAIN_TEXT = ".json, texts", ".jsonl, texts", "plain text"
"""Formats of corpora: JSON whose entries may be texts alone, and files that are one text each."""
FORMATS: dict[str, Callable[[DataFile, Notes], Iterator[Located]]] = {
    **READERS,
    UNQUOTED_TSV: unquoted_tsv_rows,
    JSON_TEXTS: partial(json_rows, texts=True),
    JSONL_TEXTS: partial(jsonl_rows, texts=True),
    PLAIN_TEXT: whole_text_rows,
}


@dataclass(frozen=True)
class Need:
    """How much of a file is needed, so that no more of it is kept.

    Attributes:
        rows: rows that count.
        counts: whether a row counts; one that does not is kept all the same.
        further: is told every row behind these, up to `MOST_ROWS` in all; None: reading ends there.
    """

    rows: int
    counts: Callable[[Row], bool] = lambda row: True
    further: Callable[[Row], None] | None = None


@dataclass(frozen=True)
class FileRows:
    """The rows of one file, or of shards one behind the other.

    Attributes:
        rows: all of them.
        files: (number of its first row, file) of each.
    """

    rows: list[Row]
    files: tuple[tuple[int, Path], ...]

    def where(self, row: int) -> str:
        """File and row, for messages; a shard's rows are counted from its own start."""
        first, file = next(entry for entry in reversed(self.files) if entry[0] <= row)
        return f"{file} row {row - first}"

    @property
    def name(self) -> str:
        """The file, or the first of several, for messages."""
        file = self.files[0][1]
        return str(file) if len(self.files) == 1 else f"{file} (and {len(self.files) - 1} more)"


def user_path(path: str | Path, option: str = "data.path") -> Path:
    """A path as a user writes it, `~` and all.

    Raises:
        UserError: a `~name` of nobody.
    """
    try:
        return Path(path).expanduser()
    except (RuntimeError, TypeError):
        raise UserError(
            f"{option}={path} names no file or a home folder that does not exist, expected a path: write it out."
        ) from None


def is_folder(path: Path, option: str = "data.path") -> bool:
    """Whether a folder is there; a name that the system does not take is told as such.

    Raises:
        UserError: naming the option.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise UserError(
            f"{option}={quoted(str(path))} cannot be looked at ({error.strerror}), expected a readable file or folder: "
            "check its name and permissions."
        ) from None


def format_of(path: Path, formats: Mapping[str, str] | None = None) -> str | None:
    """The format that a name's ending says, `.gz` aside; None if it says none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == PACKED:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    named = (formats or {}).get(suffix, suffix)
    return named if named in FORMATS else None


def stem_of(path: Path) -> str:
    """The name without the endings of format and packing."""
    stem = Path(path.name[: -len(PACKED)]) if path.suffix.lower() == PACKED else path
    return stem.stem


def data_file(path: str | Path, option: str = "data.path", formats: Mapping[str, str] | None = None) -> DataFile:
    """A file that can be read, by its ending.

    Raises:
        UserError: no such file, a folder, or an ending that names no format.
    """
    file = user_path(path, option)
    if is_folder(file, option):
        raise UserError(f"The data file {file} is a folder, expected a file: check {option}.")
    if not file.is_file():
        raise UserError(f"The data file {file} does not exist, expected a readable file: check {option}.")
    known = format_of(file, formats)
    if known is None:
        raise UserError(
            f"The data file {file} has the suffix {file.suffix!r}, expected one of {listed_suffixes(formats)}, or one "
            f"of these and {PACKED}: convert or rename it."
        )
    return DataFile(file, known)


def listed_suffixes(formats: Mapping[str, str] | None) -> str:
    """The endings that can be read, in words."""
    return ", ".join(dict.fromkeys([*READERS, *(formats or {})]))


def named_file(path: Path) -> Path:
    """A published file, or the same packed with gzip where only that is there."""
    packed = path.with_name(path.name + PACKED)
    return packed if packed.is_file() and not path.exists() else path


def read_rows(
    path: str | Path,
    option: str = "data.path",
    formats: Mapping[str, str] | None = None,
    notes: Notes | None = None,
    need: Need | None = None,
) -> list[Row]:
    """Read a file whose suffix names its format; a relative path counts from the working directory.

    Args:
        path: the file.
        option: what the user set, for the message.
        formats: suffix → the format it is read as, where a published file has a suffix or a form of its own.
        notes: is told what was done.
        need: what is needed of it; None: every row, and more than `MOST_ROWS` are refused.

    Raises:
        UserError: missing file, unknown suffix, or content that is not what the suffix says, with the line number.
    """
    file = data_file(path, option, formats)
    notes = Notes() if notes is None else notes
    if file.format == ".parquet":
        located = parquet_rows(file, notes, MOST_ROWS if need is None else None)
    else:
        located = FORMATS[file.format](file, notes)
    rows: list[Row] = []
    names: set[str] = set()  # of columns, checked already
    counted = 0
    for read, (where, row) in enumerate(located):
        if need is not None and counted >= need.rows and (need.further is None or read >= MOST_ROWS):
            break
        if read >= MOST_ROWS:
            raise too_many_rows(file, MOST_ROWS)
        if not _is_plain(row, names):
            check_row(f"{file.path}{where}", row)
            names.update(row)
        if need is not None and counted >= need.rows:
            need.further(row)  # type: ignore[misc]
            continue
        rows.append(row)
        counted += need is None or need.counts(row)
    return rows


def read_files(
    files: Sequence[Path],
    option: str = "data.path",
    formats: Mapping[str, str] | None = None,
    notes: Notes | None = None,
    need: Need | None = None,
) -> FileRows:
    """Read files one behind the other; see `read_rows`, whose bounds and `need` hold for all of them together."""
    rows: list[Row] = []
    starts = []
    for file in files:
        starts.append((len(rows), file))
        left = need and replace(need, rows=need.rows - sum(map(need.counts, rows)))
        if left is not None and left.rows <= 0 and left.further is None:
            starts.pop()
            break
        rows += read_rows(file, option, formats, notes, left)
        if len(rows) > MOST_ROWS:
            raise too_many_rows(data_file(file, option, formats), MOST_ROWS)
    if notes is not None:
        part = "the first " if need is not None else ""
        notes.say(f"read {part}{len(rows)} rows of {listed([file.name for _, file in starts])}")
    return FileRows(rows, tuple(starts))


def _is_plain(row: Row, names: set[str]) -> bool:
    """Whether nothing in a row can be amiss, found without looking into it: short ASCII texts and numbers."""
    return row.keys() <= names and all(
        (value.isascii() and len(value) <= MOST_IN_TEXT and "\x00" not in value)
        if isinstance(value, str)
        else not isinstance(value, dict | list)
        for value in row.values()
    )


def check_row(where: str, row: Row) -> None:
    """Refuse what no tokenizer or terminal takes: characters that stand for nothing, endless texts, deep nesting.

    Raises:
        UserError: naming the place.
    """
    pending: list[tuple[Any, int]] = [(row, 0)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str):
            _check_text(where, value)
        elif isinstance(value, dict | list):
            if depth > MOST_NESTED:
                raise UserError(
                    f"{where} is nested more than {MOST_NESTED} deep, expected a flat row: mend that entry."
                )
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            pending += [(part, depth + 1) for part in parts]


def _check_text(where: str, text: str) -> None:
    if len(text) > MOST_IN_TEXT:
        raise UserError(
            f"{where} has a text of {len(text)} characters, expected at most {MOST_IN_TEXT}, far more than any model "
            "reads: cut it."
        )
    if "\x00" in text:
        raise UserError(
            f"{where} has a NUL character in {quoted(text)}, expected text: remove it, or convert the file if it is "
            "UTF-16."
        )
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} has half a surrogate pair, {text[error.start]!a}, which is no character, expected whole "
            "ones: write the text again, or put \\ufffd in its place."
        ) from None


def first_of(row: Row, names: Sequence[str]) -> str | None:
    """The first of these columns that a row has; None without one."""
    return next((name for name in names if name in row), None)
