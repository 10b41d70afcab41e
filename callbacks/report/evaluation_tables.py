"""The report's tables of evaluation results: methods down, metrics across."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twinlens.attribution.evaluation.parts import is_part
from twinlens.callbacks.results.columns import SETTINGS, Cell, Row, is_control
from twinlens.callbacks.results.formatting import ARROWS, format_number, format_row_value, metric_label

MAX_COLUMNS = 8
"""An evaluation with more metrics has one table for each of them, k across."""


def evaluation_tables(rows: Sequence[Row], directions: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One table per evaluation, or per metric where an evaluation has many.

    Methods (by split, seed, group … where these differ) stand down, metrics across.
    """
    whole = [row for row in rows if not is_part(row["group"])]
    parts = [row for row in rows if is_part(row["group"])]
    yield from _tables(whole, directions, "")
    yield from _tables(parts, directions, " by parts of the examples")


def _tables(rows: Sequence[Row], directions: Mapping[str, str], called: str) -> Iterator[dict[str, Any]]:
    for evaluation in dict.fromkeys(row["evaluation"] for row in rows):
        mine = [row for row in rows if row["evaluation"] == evaluation]
        name = str(evaluation or "other") + called
        if len({(row["metric"], row["k"]) for row in mine}) <= MAX_COLUMNS:
            yield _table(name, mine, directions)
            continue
        with_k = dict.fromkeys(row["metric"] for row in mine if row["k"] is not None)
        for metric in with_k:
            found = [row for row in mine if row["metric"] == metric and row["k"] is not None]
            yield _table(f"{name}: {metric}", found, directions, metric)
        rest = [row for row in mine if row["k"] is None]
        if rest:
            yield _table(name, rest, directions)


def _table(name: str, mine: Sequence[Row], directions: Mapping[str, str], metric: Cell = None) -> dict[str, Any]:
    """One table; its columns are called by their k alone where `metric` says what all of them are."""
    names = [
        name
        for name in ("model", "data", "seed", "split", "group", "reference_group", *SETTINGS)
        if len({row[name] for row in mine}) > 1
    ]
    with_reference = "reference_group" not in names and any(row["reference_group"] for row in mine)
    keys = ["method", *names, *["reference_group"][:with_reference]]
    columns = sorted({(row["metric"], row["k"]) for row in mine}, key=lambda column: _place(column, mine))
    cells: dict[tuple[Cell, ...], dict[tuple[Cell, Cell], Row]] = {}
    for row in mine:
        cells.setdefault(tuple(row[key] for key in keys), {})[row["metric"], row["k"]] = row
    sizes = {row["n"] for row in mine}
    best = _best(mine, columns, directions) if not names else {}
    return {
        "name": name,
        "n": next(iter(sizes)) if len(sizes) == 1 else None,
        "key_names": keys,
        "columns": [
            {
                "name": metric_label({"metric": None if metric else column, "k": k}).strip(),
                "arrow": ARROWS.get(directions.get(str(column), ""), ""),
            }
            for column, k in columns
        ],
        "lines": [
            {
                "control": any(map(is_control, by_metric.values())),
                "key_cells": [
                    str(key[0] or _of_the_model(mine[0])),
                    *("" if part is None else part for part in key[1:]),
                ],
                "cells": [_cell(by_metric.get(column), best.get(column), len(sizes) > 1) for column in columns],
            }
            for key, by_metric in cells.items()
        ],
    }


def _place(column: tuple[Cell, Cell], rows: Sequence[Row]) -> tuple[int, float]:
    """Metrics in the order of the rows, k by size."""
    metric, k = column
    order = next(i for i, row in enumerate(rows) if row["metric"] == metric)
    return order, float(k) if isinstance(k, int | float) else 0.0


def _of_the_model(row: Row) -> str:
    """What stands in the method column where a result is the model's own."""
    return "model" if row["evaluation"] == "accuracy" else "–"


def _best(
    rows: Sequence[Row], metrics: Sequence[tuple[Cell, Cell]], directions: Mapping[str, str]
) -> dict[tuple[Cell, Cell], float]:
    """Per metric the best value where at least two methods, controls apart, have one."""
    best = {}
    for metric in metrics:
        values = [
            float(row["value"])
            for row in rows
            if (row["metric"], row["k"]) == metric and isinstance(row["value"], int | float) and not is_control(row)
        ]
        direction = directions.get(str(metric[0]))
        if len(values) > 1 and direction:
            best[metric] = max(values) if direction == "higher" else min(values)
    return best


def _cell(row: Row | None, best: float | None, with_n: bool) -> dict[str, Any]:
    if row is None:
        return {"shown": "", "best": False, "n": None, "published": ""}
    return {
        "shown": format_row_value(row),
        "best": best is not None and row["value"] == best and not is_control(row),
        "n": row["n"] if with_n else None,
        "published": format_number(row.get("published")),
    }
