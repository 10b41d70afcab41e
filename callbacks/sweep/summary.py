"""summary.csv of a sweep: every result as its mean over seeds, with the standard error of that mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from twinlens.callbacks.figures.charts import estimate
from twinlens.callbacks.results.columns import ABOUT, CONTROL, DIRECTIONS, SETTING, Cell, Row
from twinlens.callbacks.results.formatting import format_table
from twinlens.callbacks.results.results_csv import protect
from twinlens.callbacks.results.run_tables import printable
from twinlens.callbacks.store.files import write_text
from twinlens.callbacks.sweep.jobs import Job

COLUMNS = (*ABOUT, CONTROL, "swept", "value", "stderr", "seeds", "published")
MAX_PRINTED = 200
"""Longer summaries are cut on the terminal; summary.csv has the rest."""


def summarise(jobs: Sequence[Job]) -> list[dict[str, Cell]]:
    """One row per result and what was swept beside it.

    A seed that several jobs share (they differ in methods or evaluations alone) counts once, as the mean of its rows.
    With one seed the row keeps the error it has, over examples or draws; `seeds` says so.
    """
    found: dict[tuple[Cell, ...], dict[Cell, list[Row]]] = {}
    for job in jobs:
        for row in job.rows:
            key = (*(row.get(name) for name in ABOUT), job.swept or None)
            found.setdefault(key, {}).setdefault(row["seed"], []).append(row)
    summary = []
    for key, by_seed in found.items():
        of_seeds = [_of_one_seed(rows) for rows in by_seed.values()]
        mean = estimate(of_seeds)
        if mean is not None:
            every = [row for rows in by_seed.values() for row in rows]
            published = next((row["published"] for row in every if row["published"] is not None), None)
            line = dict(zip((*ABOUT, "swept"), key, strict=True)) | {CONTROL: every[0].get(CONTROL)}
            summary.append(line | {"value": mean[0], "stderr": mean[1], "seeds": len(by_seed), "published": published})
    return summary


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> None:
    """Write a CSV file, whole or not at all; cells that look like formulas are protected."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns)
    writer.writeheader()
    writer.writerows({column: protect(row.get(column)) for column in columns} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, stream.getvalue())


def format_summary(summary: Sequence[Row], directions: Mapping[str, str] = DIRECTIONS) -> str:
    """The summary as text, without lists and parts of the examples as in a run's table; `n` is the number of seeds."""
    rows = [
        {
            **row,
            "n": row["seeds"],
            "variant": "; ".join(filter(None, [_text(row["variant"]), _text(row["swept"])])),
            SETTING: None if row["swept"] else row[SETTING],  # what was swept says it already
        }
        for row in printable(summary)
    ]
    lines = ["", f"sweep: mean ± standard error over seeds (n); {len(summary)} rows in summary.csv"]
    lines.append(format_table(rows[:MAX_PRINTED], directions))
    if left := len(summary) - len(rows[:MAX_PRINTED]):
        lines.append(f"{left} more rows, of lists, maps and parts of the examples, are in summary.csv")
    return "\n".join(lines)


def _of_one_seed(rows: Sequence[Row]) -> Row:
    values = [float(row["value"]) for row in rows if isinstance(row["value"], int | float)]
    return {**rows[0], "value": sum(values) / len(values) if values else None}


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell)
