"""The papers' tables as the report shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twinlens.callbacks.results.formatting import format_number
from twinlens.callbacks.results.neuron_level_tables import neuron_level_tables
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import published_rows
from twinlens.callbacks.results.site_tables import site_tables
from twinlens.callbacks.results.table import PUBLISHED
from twinlens.callbacks.results.unified_tables import unified_tables

MAX_ROWS = 500
"""A longer table of tables/*.csv is shown up to here; the file has the rest."""
_NUMBERED = "table"
_NAMES = {"concepts": "Section 5.1"}


def table_views(run: RunFiles) -> Iterator[dict[str, Any]]:
    """Every table of tables/*.csv for the page, with the title of the paper's table, numbers rounded."""
    rows = published_rows(run)
    titles = {
        table.name: table.title for table in [*unified_tables(rows), *site_tables(rows), *neuron_level_tables(rows)]
    }
    for name, (header, lines) in run.tables.items():
        number = name.removeprefix(_NUMBERED)
        columns = [_numbers([line[i] for line in lines]) for i in range(len(header))]
        classes = [
            " ".join([*["num"][: column is not None], *["published"][: cell.split(" ")[0] == PUBLISHED]])
            for cell, column in zip(header, columns, strict=True)
        ]
        yield {
            "name": f"Table {number}" if number.isdigit() else _NAMES.get(name, name.replace("_", " ").capitalize()),
            "title": titles.get(name, ""),
            "header": header,
            "classes": classes,
            "lines": [
                [cell if column is None else column[row] for cell, column in zip(line, columns, strict=True)]
                for row, line in enumerate(lines[:MAX_ROWS])
            ],
        }


def _numbers(cells: Sequence[str]) -> list[str] | None:
    """A column of numbers as the page shows them, None for a column of anything else."""
    if not any(cells):
        return None
    try:
        return [format_number(float(cell)) if cell else "" for cell in cells]
    except ValueError:
        return None
