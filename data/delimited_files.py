"""CSV and TSV, read strictly: what a quotation mark swallows and what a header repeats is never guessed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, quoted
from twinlens.data.text_files import DataFile, text_lines

MOST_IN_TEXT = 1_000_000
"""Characters of one text, some hundred times what any model reads."""
MOST_COLUMNS = 10_000
Located = tuple[str, dict[str, object]]
"""Where a row stands, as `:line` or ` row number` behind the file's name, and the row."""


def csv_rows(file: DataFile, notes: Notes) -> Iterator[Located]:
    """Rows of a CSV file."""
    return _rows(file, ",", True, notes)


def tsv_rows(file: DataFile, notes: Notes) -> Iterator[Located]:
    """Rows of a TSV file: quoted as CSV is, unless a cell shows that the file was written without quoting."""
    plain, doubled = _signs_of_quoting(file)
    if plain and not doubled:
        notes.say(
            f"{file.path.name} is read without quoting, since a quotation mark closes inside a cell of line {plain}: "
            "quotation marks are text"
        )
    return _rows(file, "\t", not plain or bool(doubled), notes)


def unquoted_tsv_rows(file: DataFile, notes: Notes) -> Iterator[Located]:
    """Rows of a TSV file published without quoting (MNLI, HANS): quoted only if a cell shows doubled marks."""
    plain, doubled = _signs_of_quoting(file)
    if doubled and not plain:
        notes.say(f"{file.path.name} is read with quoting as in CSV, since line {doubled} doubles its quotation marks")
    return _rows(file, "\t", bool(doubled) and not plain, notes)


def _signs_of_quoting(file: DataFile) -> tuple[int, int]:
    """The first lines, 0 for none, with a cell that only a writer without quoting makes, and only one with quoting.

    Such cells are `"Quoted" start`, whose mark closes inside, and `"He said ""yes"", twice"`, whose marks are doubled.
    """
    plain = doubled = 0
    for number, line in enumerate(text_lines(file, ""), start=1):
        if '"' not in line:
            continue
        for cell in line.rstrip("\r\n").split("\t"):
            inside = cell[1:-1]
            if not cell.startswith('"') or len(cell) < 2:
                continue
            if cell.endswith('"') and '"' not in inside.replace('""', ""):
                doubled = doubled or (number if '""' in inside else 0)
            elif '"' in cell[1:].replace('""', ""):
                plain = plain or number
    return plain, doubled


def _rows(file: DataFile, delimiter: str, quoting: bool, notes: Notes) -> Iterator[Located]:
    csv.field_size_limit(MOST_IN_TEXT)  # the default of 128 KiB is shorter than some evidence
    reader = csv.reader(
        text_lines(file, ""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        strict=True,
    )
    header = _next(file, reader, delimiter) or []
    _check_header(file, header)
    spanning: list[int] = []
    while True:
        start = reader.line_num + 1
        cells = _next(file, reader, delimiter)
        if cells is None:
            break
        if not cells:
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{file.path}:{start} has {len(cells)} cells, expected {len(header)} as in the header: mend that line."
            )
        if reader.line_num > start:
            spanning.append(start)
        yield f":{start}", dict(zip(header, cells, strict=True))
    if spanning:
        shown = ", ".join(map(str, spanning[:5])) + (" …" if len(spanning) > 5 else "")
        notes.say(f"{file.path.name} has {len(spanning)} row(s) that go over several lines, quoted, from line {shown}")


def _next(file: DataFile, reader: csv.reader, delimiter: str) -> list[str] | None:  # type: ignore[valid-type]
    """The next row's cells; None at the end."""
    start = reader.line_num + 1  # type: ignore[attr-defined]
    try:
        return next(reader, None)  # type: ignore[call-overload]
    except csv.Error as error:
        reason, stopped = str(error), reader.line_num  # type: ignore[attr-defined]
    if reason == "unexpected end of data":
        raise UserError(
            f"{file.path}:{start} opens a quotation mark that is never closed, so that it would swallow all lines up "
            f"to {stopped}, expected quotation marks in pairs: close it, or double it inside a quoted cell."
        )
    if reason.startswith("field larger"):
        raise UserError(
            f"{file.path}:{start} has a text longer than {MOST_IN_TEXT} characters, expected fewer: cut it, or close "
            "its quotation mark."
        )
    raise UserError(
        f"{file.path}:{start} cannot be read ({reason}{'' if stopped == start else f' in line {stopped}'}), expected "
        f"cells separated by {delimiter!r}, with quotation marks around a whole cell and doubled inside: mend that "
        "line."
    )


def _check_header(file: DataFile, header: list[str]) -> None:
    if len(header) > MOST_COLUMNS:
        raise UserError(
            f"{file.path}:1 names {len(header)} columns, expected at most {MOST_COLUMNS}: check that the first line is "
            "a header."
        )
    refuse_doubled(f"{file.path}:1", header, "column")


def refuse_doubled(where: str, names: Sequence[str], what: str) -> None:
    """Refuse a name that occurs twice: which of the two values holds could only be guessed.

    Raises:
        UserError: naming it.
    """
    twice = first_doubled(names)
    if twice is not None:
        raise UserError(
            f"{where} names the {what} {quoted(twice)} twice, expected each name once: rename or remove one of them."
        )


def first_doubled(names: Iterable[str]) -> str | None:
    """The first name that occurred before; None where all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
