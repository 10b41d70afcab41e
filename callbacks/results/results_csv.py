"""results.csv and the tables made from it: read, write, print.

A row is a mapping of the columns of `COLUMNS`, which says what their cells hold; None is an empty cell. A row may carry
`published` as well (the paper's figure): the printed tables show it beside one's own value, results.csv leaves it out.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.columns import COLUMNS, NEEDED, Cell, Kind, Row
from twinlens.conf.checking.secrets import hide

AGAIN = "run the evaluation again"
"""What to do about a damaged table of one's own run."""

_PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write results.csv (RFC 4180) to a partial path and rename it.

    Text that a spreadsheet would take for a formula (it starts with = + - @, a tab or a carriage return) gets an
    apostrophe in front, which `read_results` takes off again; numbers are written as they are.
    """
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([_written(row.get(column)) for column in COLUMNS])
    os.replace(partial, path)


def read_results(path: Path, remedy: str = AGAIN) -> list[dict[str, Cell]]:
    """Read results.csv as this code, an earlier or a later one left it.

    Every row has all columns of `COLUMNS`: one that the file lacks is empty, or what the column says of files of before
    it. Columns that the file has beside them are kept as text.

    Args:
        remedy: what to do about a file that cannot be read.

    Raises:
        UserError: the file is missing, has no column for what no result is without, has a column twice, or a cell is
            no number where one is expected (with line).
    """
    rows = []
    for number, cells in read_table(path, NEEDED, remedy):
        kinds: dict[str, Kind] = {name: COLUMNS[name].kind if name in COLUMNS else "text" for name in cells}
        known = {name: _parse(cell, name, kinds[name], path, number, remedy) for name, cell in cells.items()}
        row = {name: known.get(name) for name in (*COLUMNS, *known)}
        came_later = {name: column.before for name, column in COLUMNS.items() if name not in cells and column.before}
        rows.append(row | {name: before(row) for name, before in came_later.items()})
    return rows


def read_table(path: Path, needed: Sequence[str], remedy: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file by column, each with the number of the line it ends on.

    Args:
        needed: columns that the file must have; it may have any others.
        remedy: what to do about a file without them.

    Raises:
        UserError: see `read_csv`; or a needed column is missing, or two have one name.
    """
    header, lines = read_csv(path, remedy)
    if not set(needed) <= set(header) or len(set(header)) < len(header):
        raise UserError(
            f"The header of {path} is {','.join(header) or 'empty'}; expected {','.join(needed)} and others, each "
            f"once: {remedy}."
        )
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in lines]


def read_csv(path: Path, remedy: str = AGAIN) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows of a CSV file, each row with the number of the line it ends on.

    Raises:
        UserError: the file is missing, is no UTF-8 CSV, or a row has more or fewer cells than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected a table: {remedy}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); expected a CSV table in UTF-8: {remedy}.") from None
    for number, cells in lines:
        if len(cells) != len(header):
            raise UserError(
                f"Line {number} of {path} has {len(cells)} cells; expected {len(header)}, as the header has (a number "
                f"has a point, text with a comma quotation marks): {remedy}."
            )
    return header, lines


def unprotect(cell: str) -> str:
    """Take off the apostrophe that `write_results` puts before text which looks like a formula."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def protect(cell: Cell) -> Cell:
    return "'" + cell if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _written(cell: Cell) -> Cell:
    """A cell as it is written: yes and no are `true` and an empty cell, no text is a formula or secret by its value."""
    if isinstance(cell, bool):
        return "true" if cell else None
    return protect(hide(cell) if isinstance(cell, str) else cell)


def _parse(cell: str, column: str, kind: Kind, path: Path, line: int, remedy: str) -> Cell:
    if cell == "":
        return None
    try:
        if kind in ("whole", "number") and "_" in cell:  # Python's own mark of thousands
            raise ValueError
        if kind == "whole":
            return int(cell)
        if kind == "number":
            return float(cell)
    except ValueError:
        what = "a whole number" if kind == "whole" else "a number with a point, as in 0.31"
        raise UserError(f"Column {column} in line {line} of {path} is {cell!r}; expected {what}: {remedy}.") from None
    if kind == "place" and _PLAIN_NUMBER.fullmatch(cell):
        return int(cell) if cell.lstrip("-").isdigit() else float(cell)
    return unprotect(cell)
