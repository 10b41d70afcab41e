"""results.csv and the tables made from it: read, write, print.

A row is a mapping of the columns of `COLUMNS`; `value` and `stderr` are numbers, `n` and `seed` whole numbers, `k` a
number or a word, the rest text; None is an empty cell. A row may carry `published` as well (the paper's figure):
the printed tables show it beside one's own value, results.csv leaves it out.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attribution.base import UserError
from conf.secrets import hide

Cell = str | int | float | None
Row = Mapping[str, Cell]

COLUMNS = (
    "model",
    "data",
    "seed",
    "split",
    "method",
    "evaluation",
    "metric",
    "k",
    "group",
    "reference_group",
    "variant",
    "value",
    "stderr",
    "n",
)
DIRECTIONS: Mapping[str, str] = {
    "accuracy": "higher",
    "macro_f1": "higher",
    "sufficiency": "higher",  # share of predictions preserved while only the top neurons are kept
    "comprehensiveness": "lower",  # share of predictions preserved while the top neurons are zeroed
    "mrr": "higher",
}
ARROWS = {"higher": "↑", "lower": "↓"}
WIDTH = 100
"""Columns of a terminal that a printed table fits."""

_GROUPS = ("group", "reference_group", "variant")
_WHOLE = frozenset({"seed", "n"})
_NUMBER = frozenset({"value", "stderr", "published"})
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
            writer.writerow([_shown(row.get(column)) for column in COLUMNS])
    os.replace(partial, path)


def read_results(path: Path) -> list[dict[str, Cell]]:
    """Read results.csv as `write_results` left it.

    Raises:
        UserError: the file is missing, its header differs, or a cell is no number where one is expected (with line).
    """
    header, lines = read_csv(path)
    if header != list(COLUMNS):
        raise UserError(
            f"The header of {path} is {','.join(header) or 'empty'}; expected {','.join(COLUMNS)}: "
            "run the evaluation again."
        )
    return [
        {column: _parse(cell, column, path, number) for column, cell in zip(COLUMNS, cells, strict=True)}
        for number, cells in lines
    ]


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
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
        raise UserError(f"{path} is missing; expected a table: run the evaluation again.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); expected a CSV table: run the evaluation again.") from None
    for number, cells in lines:
        if len(cells) != len(header):
            raise UserError(
                f"Line {number} of {path} has {len(cells)} cells; expected {len(header)}: run the evaluation again."
            )
    return header, lines


def unprotect(cell: str) -> str:
    """Take off the apostrophe that `write_results` puts before text which looks like a formula."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def format_number(value: Cell) -> str:
    """A number with four significant digits, whole numbers in full; text unchanged; None empty."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"


def format_value(value: Cell, stderr: Cell = None) -> str:
    """`value ± stderr`, both with as many decimals as two significant digits of the error take."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return format_number(value)
    if not isinstance(stderr, int | float) or not math.isfinite(stderr):
        return format_number(float(value))
    if stderr <= 0:
        return f"{format_number(float(value))} ± 0"
    decimals = 1 - math.floor(math.log10(stderr))
    if decimals > 8 or abs(value) >= 1e9:  # fixed-point would take more digits than anyone reads
        return f"{value:.4g} ± {stderr:.2g}"
    decimals = max(decimals, 0)
    return f"{value:.{decimals}f} ± {stderr:.{decimals}f}"


def metric_label(row: Row) -> str:
    """The metric with its k, as `sufficiency @100`."""
    k = format_number(row.get("k"))
    return f"{row.get('metric') or ''} @{k}" if k else str(row.get("metric") or "")


def format_table(rows: Sequence[Row], directions: Mapping[str, str] = DIRECTIONS, width: int = WIDTH) -> str:
    """The results as text for the terminal, one block per evaluation.

    What differs between blocks but not within one (the split, say) stands in the block's heading.

    Args:
        rows: as read_results gives them.
        directions: metric → which direction is better, "higher" or "lower"; metrics that are not in it get no arrow.
        width: no line is longer; names are cut with an ellipsis, groups and variants first, a metric's k never.
    """
    if not rows:
        return "no results"
    varying = _varying(rows)
    blocks = []
    for evaluation in dict.fromkeys(_text(row.get("evaluation")) for row in rows):
        mine = [row for row in rows if _text(row.get("evaluation")) == evaluation]
        columns = [name for name in varying if name in _varying(mine)]
        said = [f"{name} {_text(mine[0].get(name))}" for name in varying if name not in columns and mine[0].get(name)]
        heading = (evaluation or "other") + (f" ({', '.join(said)})" if said else "")
        blocks.append("\n".join([_shortened(_one_line(heading), width), *_block(mine, columns, directions, width)]))
    return "\n\n".join(blocks)


def _block(rows: Sequence[Row], varying: Sequence[str], directions: Mapping[str, str], width: int) -> list[str]:
    """Header and lines of one evaluation."""
    header = _header(rows, varying, directions)
    body = [_cells(row, header, directions) for row in rows]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    room = width - 2 * len(widths)
    groups = [i for i, name in enumerate(header) if name in _GROUPS]
    while sum(widths) > room and any(widths[i] > 12 for i in groups):
        widths[max(groups, key=widths.__getitem__)] -= 1
    while sum(widths) > room and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    numeric = {i for i, name in enumerate(header) if name in ("value", "published", "n", "seed")}
    return ["  " + _aligned(cells, widths, numeric) for cells in [header, *body]]


def markdown_table(rows: Sequence[Row], directions: Mapping[str, str] = DIRECTIONS) -> str:
    """The results as one GitHub-flavoured Markdown table with the evaluation in its first column."""
    if not rows:
        return "no results"
    header = _header(rows, _varying(rows), directions)
    order = list(dict.fromkeys(_text(row.get("evaluation")) for row in rows))
    ordered = sorted(rows, key=lambda row: order.index(_text(row.get("evaluation"))))
    lines = [["evaluation", *header]]
    lines += [[_text(row.get("evaluation")) or "other", *_cells(row, header, directions)] for row in ordered]
    text = ["| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in lines]
    right = {"value", "published", "n", "seed"}
    text.insert(1, "| " + " | ".join("---:" if name in right else "---" for name in lines[0]) + " |")
    return "\n".join(text)


def _varying(rows: Sequence[Row]) -> list[str]:
    """Columns of a run that do not say the same in every row."""
    return [name for name in ("model", "data", "seed", "split") if len({row.get(name) for row in rows}) > 1]


def _header(rows: Sequence[Row], varying: Sequence[str], directions: Mapping[str, str]) -> list[str]:
    """Names of the columns that say something; the one of the arrows has none."""
    filled = [name for name in _GROUPS if any(row.get(name) for row in rows)]
    published = ["published"] if any(row.get("published") is not None for row in rows) else []
    arrows = [""] if any(_text(row.get("metric")) in directions for row in rows) else []
    return [*varying, "method", "metric", *filled, *arrows, "value", *published, "n"]


def _cells(row: Row, header: Sequence[str], directions: Mapping[str, str]) -> list[str]:
    """A row's text under each column."""
    shown = {
        "metric": metric_label(row),
        "": ARROWS.get(directions.get(_text(row.get("metric")), ""), ""),
        "value": format_value(row.get("value"), row.get("stderr")),
        "published": format_number(row.get("published")),
    }
    return [_one_line(shown[name] if name in shown else _text(row.get(name))) for name in header]


def _aligned(cells: Sequence[str], widths: Sequence[int], numeric: set[int]) -> str:
    parts = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        shown = _shortened(cell, width)
        parts.append(shown.rjust(width) if i in numeric else shown.ljust(width))
    return "  ".join(parts).rstrip()


def _shortened(text: str, width: int) -> str:
    """Text that fits; what is cut is its end, or the middle where it ends in ` @k`."""
    if len(text) <= width:
        return text
    _, mark, k = text.rpartition(" @")
    tail = mark + k if mark and len(mark + k) + 2 <= width else ""
    return text[: width - 1 - len(tail)] + "…" + tail


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\|`*_<>\[\]])", r"\\\1", text)
    return escaped or " "


def _shown(cell: Cell) -> Cell:
    """A cell that is no formula and holds nothing that is secret by its value."""
    return protect(hide(cell) if isinstance(cell, str) else cell)


def protect(cell: Cell) -> Cell:
    return "'" + cell if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _parse(cell: str, column: str, path: Path, line: int) -> Cell:
    if cell == "":
        return None
    try:
        if column in _WHOLE:
            return int(cell)
        if column in _NUMBER:
            return float(cell)
    except ValueError:
        raise UserError(
            f"Column {column} in line {line} of {path} is {cell!r}; expected a number: run the evaluation again."
        ) from None
    if column == "k" and _PLAIN_NUMBER.fullmatch(cell):
        return int(cell) if cell.lstrip("-").isdigit() else float(cell)
    return unprotect(cell)
