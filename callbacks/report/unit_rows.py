"""Rows of scores by the example they are of: one, or one for each unit of the example that was asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.callbacks.results.run_files import ScoreSet


def rows_by_example(scores: ScoreSet, indices: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Rows of scores by example: one, or one for each of its units."""
    if scores.kind == "unit":
        return scores.rows.every(indices)
    return {index: [row] for index, row in scores.rows.rows(indices).items()}


def of_unit(row: Mapping[str, Any]) -> str:
    """What stands before the target of a unit's list: the unit and its contribution; empty of an example's own."""
    if row.get("contribution") is None:
        return ""
    head = "head " if row["unit_kind"] == "head" else "ATTN " if row["site"] != "ffn" else ""
    return f"L{row['layer']} · {head}{row['unit']}, which adds {row['contribution']:.3g} nats to "
