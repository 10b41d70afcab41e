"""Columns of results.csv and what their values may be."""

from __future__ import annotations

from collections.abc import Mapping

Cell = str | int | float | None
Row = Mapping[str, Cell]
CONTROL = "control"
"""Column that is `true` in the rows of a control, else empty."""
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
    CONTROL,
)
DIRECTIONS: Mapping[str, str] = {
    "accuracy": "higher",
    "macro_f1": "higher",
    "sufficiency": "higher",  # share of predictions preserved while only the top neurons are kept
    "comprehensiveness": "lower",  # share of predictions preserved while the top neurons are zeroed
    "mrr": "higher",
}


def is_control(row: Row) -> bool:
    """Whether a row is of a control, which the others are compared with."""
    return row.get(CONTROL) == "true"
