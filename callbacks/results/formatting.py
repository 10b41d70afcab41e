"""Results as aligned plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from twinlens.callbacks.processes.terminal import table_width
from twinlens.callbacks.results.columns import DIRECTIONS, SETTINGS, Cell, Row

ARROWS = {"higher": "↑", "lower": "↓"}
NUMBERS = ("value", "published", "n", "seed")
"""Columns that are never cut."""
NARROWEST = 5
"""Signs that are left of a name at least."""
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


def format_table(rows: Sequence[Row], directions: Mapping[str, str] = DIRECTIONS, width: int | None = None) -> str:
    """The results as text for the terminal, one block per evaluation.

    What differs between blocks but not within one (the split, say) stands in the block's heading. No line is longer
    than `width`, unless numbers leave too little room: these are never cut. Names are, groups and variants first, with
    a letter under which a legend below the table has them in full, as in `logprob_incr…(a) @10`.

    Args:
        rows: as read_results gives them.
        directions: metric → which direction is better, "higher" or "lower"; metrics that are not in it get no arrow.
        width: None: that of the terminal, 100 where there is none.
    """
    if not rows:
        return "no results"
    width, legend = width or table_width(), _Legend()
    varying = _varying(rows)
    blocks = []
    for evaluation in dict.fromkeys(_text(row.get("evaluation")) for row in rows):
        mine = [row for row in rows if _text(row.get("evaluation")) == evaluation]
        columns = [name for name in varying if name in _varying(mine)]
        said = [f"{name} {_text(mine[0].get(name))}" for name in varying if name not in columns and mine[0].get(name)]
        heading = (evaluation or "other") + (f" ({', '.join(said)})" if said else "")
        heading = legend.shortened(_one_line(heading), width)
        blocks.append("\n".join([heading, *_block(mine, columns, directions, width, legend)]))
    return "\n\n".join([*blocks, *legend.text(width)])


class _Legend:
    """Names that are cut in a table, each under a letter."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def shortened(self, text: str, width: int) -> str:
        """Text that fits; of what is cut the beginning stays, the letter, and ` @k` where it ends so."""
        if len(text) <= width:
            return text
        k = _k_of(text)
        letter = self.letters.setdefault(text.removesuffix(k), _letter(len(self.letters)))
        tail = f"…({letter}){k}"
        return text[: max(1, width - len(tail))] + tail

    def text(self, width: int) -> list[str]:
        """The legend as a block of its own, no line longer than `width`; none where nothing is cut."""
        lines = []
        for name, letter in self.letters.items():
            room = width - len(letter) - 5
            parts = [name[start : start + room] for start in range(0, len(name), room)]
            lines += [f"  ({letter}) {parts[0]}", *(f"{'':{len(letter) + 5}}{part}" for part in parts[1:])]
        return ["\n".join(["names in full", *lines])] if lines else []


def _letter(number: int) -> str:
    """a … z, then aa, ab …"""
    before, own = divmod(number, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + own)


def _k_of(text: str) -> str:
    """` @10` at the end of a metric, empty where there is none."""
    _, mark, k = text.rpartition(" @")
    return mark + k if mark and k and len(k) < 10 and " " not in k else ""


def _block(
    rows: Sequence[Row], varying: Sequence[str], directions: Mapping[str, str], width: int, legend: _Legend
) -> list[str]:
    """Header and lines of one evaluation."""
    header = _header(rows, varying, directions)
    body = [_cells(row, header, directions) for row in rows]
    columns = [[line[i] for line in [header, *body]] for i in range(len(header))]
    widths = [max(map(len, cells)) for cells in columns]
    least = [NARROWEST + max(len(_k_of(cell)) for cell in cells) for cells in columns]
    names = [i for i, name in enumerate(header) if name and name not in NUMBERS]
    groups = [i for i in names if header[i] in _GROUPS]
    for which, floor in ((groups, 12), (names, 0)):
        while sum(widths) > width - 2 * len(widths):
            wide = [i for i in which if widths[i] > max(floor, least[i])]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
    numeric = {i for i, name in enumerate(header) if name in NUMBERS}
    named = [
        name if len(name) <= width else name[: width - 1] + "…" for name, width in zip(header, widths, strict=True)
    ]
    return ["  " + _aligned(cells, widths, numeric, legend) for cells in [named, *body]]


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


def _aligned(cells: Sequence[str], widths: Sequence[int], numeric: set[int], legend: _Legend) -> str:
    parts = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        shown = legend.shortened(cell, width)
        parts.append(shown.rjust(width) if i in numeric else shown.ljust(width))
    return "  ".join(parts).rstrip()


def _short(end: Cell) -> Cell:
    """An end of an interval with three digits, more than it says."""
    return float(f"{end:.3g}") if isinstance(end, float) and math.isfinite(end) else end


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
