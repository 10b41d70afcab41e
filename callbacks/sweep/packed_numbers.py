"""Numbers of jobs or runs as columns of a page's data: what each is of, and values with NaN for none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twinlens.callbacks.report.packing import Packing
from twinlens.callbacks.results.columns import ABOUT, DIRECTIONS, Row
from twinlens.callbacks.results.formatting import ARROWS

OF_NUMBERS = tuple(name for name in ABOUT if name not in ("model", "data"))
"""What a number is of, apart from the setting."""


def packed_about(pack: Packing, rows: Sequence[Row], names: Sequence[str] = OF_NUMBERS) -> dict[str, Any]:
    """Which numbers there are, a row each: their number, what each is of, and the arrow of what is better.

    Args:
        pack: takes the columns.
        rows: with a cell for each name.
        names: of the columns that say what a number is of.
    """
    return {
        "size": len(rows),
        "about": {name: pack.words(text_of(row.get(name)) for row in rows) for name in names},
        "better": pack.words(ARROWS.get(DIRECTIONS.get(str(row["metric"]), ""), "") for row in rows),
    }


def text_of(cell: Any) -> str:
    """A cell as text, numbers without zeros at their end, empty for none."""
    return "" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell)
