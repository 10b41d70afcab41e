"""Columns of results.csv and what their values may be."""

from __future__ import annotations

from collections.abc import Mapping

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
