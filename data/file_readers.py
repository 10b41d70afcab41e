"""Readers for JSON, JSONL, CSV, TSV and Parquet: rows as dictionaries, every mistake named with file and line."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from twinlens.attribution.errors import UserError

Row = dict[str, Any]


def read_rows(path: str | Path, option: str = "data.path", formats: Mapping[str, str] | None = None) -> list[Row]:
    """Read a file whose suffix names its format; a relative path counts from the working directory.

    Args:
        path: the file.
        option: what the user set, for the message.
        formats: suffix → the suffix it is read as, where a published file has a suffix of its own.

    Raises:
        UserError: missing file, unknown suffix, or content that is not what the suffix says, with the line number.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"The data file {file} does not exist, expected a readable file: check {option}.")
    suffix = file.suffix.lower()
    reader = READERS.get((formats or {}).get(suffix, suffix))
    if reader is None:
        raise UserError(
            f"The data file {file} has the suffix {file.suffix!r}, expected one of {', '.join(READERS)}: "
            "convert or rename it."
        )
    try:
        return reader(file)
    except UnicodeDecodeError as error:
        raise UserError(
            f"The data file {file} is not UTF-8 (byte {error.start}), expected UTF-8 text: convert it, "
            f"for instance with iconv -t utf-8."
        ) from None


def _not_an_object(file: Path, where: str, value: Any) -> UserError:
    return UserError(
        f"{file}{where} holds a {type(value).__name__}, expected a JSON object with one key per column: "
        "mend that entry."
    )


def _malformed(file: Path, line: int, message: str) -> UserError:
    return UserError(f"{file}:{line} is malformed JSON ({message}), expected one valid JSON value: mend that line.")


def _read_json(file: Path) -> list[Row]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise _malformed(file, error.lineno, error.msg) from None
    if not isinstance(rows, list):
        raise UserError(
            f"{file} holds a {type(rows).__name__}, expected a JSON list of objects: wrap the rows in [ ] "
            "or use .jsonl with one object per line."
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _not_an_object(file, f" entry {number}", row)
    return rows


def _read_jsonl(file: Path) -> list[Row]:
    rows = []
    # split at "\n" alone: str.splitlines would also break at U+2028 and U+0085, which occur inside real texts
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _malformed(file, number, error.msg) from None
        if not isinstance(row, dict):
            raise _not_an_object(file, f":{number}", row)
        rows.append(row)
    return rows


def _read_delimited(file: Path, delimiter: str, quoting: Any) -> list[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 KiB is shorter than some evidence
    with file.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, delimiter=delimiter, quoting=quoting)
        try:
            header = next(reader, [])
            rows = []
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{file}:{reader.line_num} has {len(cells)} cells, expected {len(header)} as in the header: "
                        "mend that line."
                    )
                rows.append(dict(zip(header, cells, strict=True)))
        except csv.Error as error:
            raise UserError(
                f"{file}:{reader.line_num} cannot be read ({error}), expected cells separated by "
                f"{delimiter!r}: mend that line."
            ) from None
    return rows


def _read_csv(file: Path) -> list[Row]:
    return _read_delimited(file, ",", csv.QUOTE_MINIMAL)


def _read_tsv(file: Path) -> list[Row]:
    # published tab-separated sets (MNLI, HANS) are written without quoting: a quotation mark is text
    return _read_delimited(file, "\t", csv.QUOTE_NONE)


def _read_parquet(file: Path) -> list[Row]:
    try:
        return pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowInvalid as error:
        message = str(error).split(". ")[0]
        raise UserError(
            f"{file} is no Parquet file ({message}), expected one: check that it was copied whole."
        ) from None


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}


def first_of(row: Row, names: Sequence[str]) -> str | None:
    """The first of these columns that a row has; None without one."""
    return next((name for name in names if name in row), None)


def only_file(folder: Path, pattern: re.Pattern[str], option: str, suffixes: Collection[str] = ()) -> Path | None:
    """The one readable file in `folder` whose name without suffix matches; None without one.

    Args:
        folder: where to look, not below it.
        pattern: searched in the name.
        option: what the user set, for the message.
        suffixes: further suffixes beside those of `READERS`.

    Raises:
        UserError: no such folder, or several such files.
    """
    if not folder.is_dir():
        raise UserError(f"The folder {folder} does not exist, expected the dataset's files: check {option}.")
    known = {*READERS, *suffixes}
    found = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in known and pattern.search(file.stem)]
    if len(found) > 1:
        raise UserError(
            f"{folder} holds {', '.join(file.name for file in found)} for one split, expected one file: move the "
            f"others away or set {option} to another folder."
        )
    return found[0] if found else None


def split_file(folder: Path, names: list[str]) -> Path | None:
    """The one file in `folder` called by one of `names` with a readable suffix; None without one.

    Raises:
        UserError: several such files.
    """
    found = [folder / f"{name}{suffix}" for name in names for suffix in READERS]
    found = [file for file in found if file.is_file()]
    if len(found) > 1:
        raise UserError(
            f"{folder} holds {', '.join(file.name for file in found)} for one split, expected one file: "
            "name the files in data.path={train: …, validation: …, test: …}."
        )
    return found[0] if found else None
