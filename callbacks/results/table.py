"""A table laid out as in print, made of results rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from twinlens.attribution.evaluation.statistics import NORMAL_975, student_975
from twinlens.callbacks.results.columns import Cell, Row
from twinlens.callbacks.results.formatting import format_number
from twinlens.callbacks.results.latex import HIGH, LOW, latex
from twinlens.callbacks.results.results_csv import protect
from twinlens.callbacks.store.files import write_text

PUBLISHED = "published"
Label = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table as text cells.

    Attributes:
        name: file name without suffix.
        title: what the paper's caption says, in short.
        header: column names; the first `n_keys` name the row.
        lines: cells, None where nothing was measured.
    """

    name: str
    title: str
    header: list[str]
    lines: list[list[Cell]]

    def write(self, folder: Path) -> Path:
        """Write <folder>/<name>.csv, and .tex beside it, each whole or not at all."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        writer.writerow([protect(name) for name in self.header])
        writer.writerows([_number(cell) for cell in line] for line in self.lines)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{self.name}.csv", stream.getvalue())
        write_text(folder / f"{self.name}.tex", latex(self.title, self.header, self.lines))
        return folder / f"{self.name}.csv"


def grid(
    name: str,
    title: str,
    keys: Sequence[str],
    rows: Sequence[Row],
    label: Callable[[Row], Label],
    column: Callable[[Row], str],
    order: Iterable[Row] | None = None,
) -> Table | None:
    """A table with one line per label and one value column per column name, None without rows.

    Columns stand in the order of `rows`; lines in that of `order`, by default the same. Behind a value column stand the
    ends of its 95 % interval where one is known (`low`, `high`), then the published figure.
    """
    if not rows:
        return None
    columns = list(dict.fromkeys(column(row) for row in rows))
    cells: dict[tuple[Label, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((label(row), column(row)), []).append(row)
    beside = {shown for (_, shown), found in cells.items() if any(row.get(PUBLISHED) is not None for row in found)}
    uncertain = {shown for (_, shown), found in cells.items() if interval_of(found) is not None}
    header = list(keys)
    for shown in columns:
        more = [*((LOW, HIGH) if shown in uncertain else ()), *([PUBLISHED] if shown in beside else [])]
        header += [shown, *(name if len(columns) == 1 else f"{name} {shown}" for name in more)]
    lines: list[list[Cell]] = []
    for line in dict.fromkeys(label(row) for row in (order if order is not None else rows)):
        values: list[Cell] = list(line)
        for shown in columns:
            found = cells.get((line, shown), [])
            values.append(_mean(found))
            if shown in uncertain:
                values += interval_of(found) or (None, None)
            if shown in beside:
                values.append(next((row[PUBLISHED] for row in found if row.get(PUBLISHED) is not None), None))
        lines.append(values)
    return Table(name, title, header, lines)


def interval_of(rows: Sequence[Row]) -> tuple[float, float] | None:
    """95 % interval of a cell: a row's own, else its value ± 1.96 errors; of several rows that of their mean.

    Rows of several seeds are few: their mean's interval is Student's. None where no error is known.
    """
    known = [row for row in rows if isinstance(row["value"], int | float)]
    if len(known) > 1:
        values = torch.tensor([float(str(row["value"])) for row in known], dtype=torch.float64)
        half = student_975(len(known) - 1) * float(values.std()) / len(known) ** 0.5
        return float(values.mean()) - half, float(values.mean()) + half
    for row in known:
        low, high, error, value = (row.get(name) for name in (LOW, HIGH, "stderr", "value"))
        if isinstance(low, int | float) and isinstance(high, int | float):
            return float(low), float(high)
        if isinstance(error, int | float) and isinstance(value, int | float):
            return value - NORMAL_975 * error, value + NORMAL_975 * error
    return None


def _mean(rows: Sequence[Row]) -> Cell:
    values = [float(row["value"]) for row in rows if isinstance(row["value"], int | float)]
    return sum(values) / len(values) if values else None


def _number(cell: Cell) -> Cell:
    """Numbers with six significant digits, more than any table prints; text that looks like a formula protected."""
    if isinstance(cell, float):
        return format_number(cell) if cell.is_integer() else f"{cell:.6g}"
    return protect(cell)


def cell_text(row: Row, name: str) -> str:
    return "" if row.get(name) is None else str(row[name])


def sortable(k: Cell) -> float:
    return float(k) if isinstance(k, int | float) else float("inf")
