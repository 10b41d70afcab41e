"""Results as aligned plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from twinlens.callbacks.results.columns import DIRECTIONS, SETTINGS, Cell, Row

ARROWS = {"higher": "↑", "lower": "↓"}
WIDTH = 100
"""Columns of a terminal that a printed table fits."""
_GROUPS = ("group", "reference_group", *SETTINGS)


def format_number(value: Cell) -> str:
    """A number with four significant digits, whole numbers in full; text unchanged; None empty."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"


def format_row_value(row: Row) -> str:
    """A row's value with its error; where all examples agree, `100 [94, 100]`: no error is not what they show."""
    low, high, stderr = (row.get(name) for name in ("low", "high", "stderr"))
    if low is None or high is None or (isinstance(stderr, int | float) and stderr > 0):
        return format_value(row.get("value"), stderr)
    return f"{format_number(row.get('value'))} [{', '.join(format_number(_short(end)) for end in (low, high))}]"


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
        "value": format_row_value(row),
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


def _short(end: Cell) -> Cell:
    """An end of an interval with three digits, more than it says."""
    return float(f"{end:.3g}") if isinstance(end, float) and math.isfinite(end) else end


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
