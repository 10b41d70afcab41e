"""JSON and JSON lines: one object per row; doubled keys, huge numbers and deep nesting are refused with their line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, quoted
from twinlens.data.delimited_files import Located, first_doubled
from twinlens.data.text_files import DataFile, text_lines

MOST_DIGITS = 300
"""Of a whole number; floating-point numbers end at 308."""
MOST_IN_JSON = 256 * 2**20
"""Characters of a file that has to be read as a whole."""
MOST_PARTS = 50_000_000
"""Commas, brackets and braces of such a file: what its values cost in memory goes with their number."""


class _Refused(ValueError):
    """What valid JSON holds and no row may."""


def jsonl_rows(file: DataFile, notes: Notes, texts: bool = False) -> Iterator[Located]:
    """Rows of a file with one JSON object per line; with `texts` a line may be a text alone, column `text`."""
    # split at "\n" alone: str.splitlines would also break at U+2028 and U+0085, which occur inside real texts
    return _line_rows(file, text_lines(file, "\n"), texts)


def json_rows(file: DataFile, notes: Notes, texts: bool = False) -> Iterator[Located]:
    """Rows of a JSON list of objects, or of JSON lines in a file called .json, as some libraries write them; with
    `texts` an entry may be a text alone, column `text`."""
    text = _whole(file)
    try:
        rows = _parsed(file, 1, text)
    except json.JSONDecodeError as error:
        if not _holds_lines(text):
            raise _malformed(file, error.lineno, error.msg) from None
        notes.say(f"{file.path.name} holds JSON lines, one row in each, and is read as .jsonl")
        yield from _line_rows(file, iter(text.split("\n")), texts)
        return
    if not isinstance(rows, list):
        raise UserError(
            f"{file.path} holds a {type(rows).__name__}, expected a JSON list of objects: wrap the rows in [ ] "
            "or use .jsonl with one object per line."
        )
    for number, row in enumerate(rows):
        yield f" entry {number}", _object(file, f" entry {number}", row, texts)


def json_value(file: DataFile) -> Any:
    """What a JSON file holds, whatever it is; None where it holds JSON lines.

    Raises:
        UserError: malformed, or beyond the bounds.
    """
    text = _whole(file)
    try:
        return _parsed(file, 1, text)
    except json.JSONDecodeError as error:
        if _holds_lines(text):
            return None
        raise _malformed(file, error.lineno, error.msg) from None


def _whole(file: DataFile) -> str:
    text = "".join(text_lines(file, "\n", MOST_IN_JSON, MOST_IN_JSON))
    if sum(text.count(mark) for mark in ",[{") > MOST_PARTS:
        raise UserError(
            f"{file.path} holds more than {MOST_PARTS} values, expected fewer: write one object per line as .jsonl."
        )
    return text


def _holds_lines(text: str) -> bool:
    """Whether the first line that is not blank is an object of its own."""
    first = next((line for line in text.split("\n", 1000) if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _line_rows(file: DataFile, lines: Iterator[str], texts: bool = False) -> Iterator[Located]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parsed(file, number, line)
        except json.JSONDecodeError as error:
            raise _malformed(file, number, error.msg) from None
        yield f":{number}", _object(file, f":{number}", row, texts)


def _parsed(file: DataFile, line: int, text: str) -> Any:
    """The value of a JSON text; its own mistakes stay as they are."""
    try:
        return json.loads(text, object_pairs_hook=_pairs, parse_int=_whole_number)
    except json.JSONDecodeError:
        raise
    except _Refused as error:
        where = f"{file.path}:{line}" if file.format == ".jsonl" or line > 1 else str(file.path)
        raise UserError(f"{where} {error}") from None
    except RecursionError:
        raise UserError(
            f"{file.path}:{line} is nested too deep to be read, expected a flat row: mend that line."
        ) from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = first_doubled(name for name, _ in pairs)
        raise _Refused(
            f"names the column {quoted(twice)} twice in one object, expected each name once: rename or remove one of "
            "them."
        )
    return row


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise _Refused(
            f"holds a number of {len(digits)} digits, expected at most {MOST_DIGITS}: write it as text, in quotation "
            "marks."
        )
    return int(digits)


def _object(file: DataFile, where: str, value: Any, texts: bool = False) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if texts and isinstance(value, str):
        return {"text": value}
    raise UserError(
        f"{file.path}{where} holds a {type(value).__name__}, expected a JSON object with one key per column: "
        "mend that entry."
    )


def _malformed(file: DataFile, line: int, message: str) -> UserError:
    return UserError(
        f"{file.path}:{line} is malformed JSON ({message}), expected one valid JSON value: mend that line."
    )
