"""The papers' tables as the report shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twinlens.callbacks.results import comparison_table
from twinlens.callbacks.results.columns import Cell, Row
from twinlens.callbacks.results.latex import merged
from twinlens.callbacks.results.neuron_level_tables import neuron_level_tables
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import published_rows
from twinlens.callbacks.results.site_tables import site_tables
from twinlens.callbacks.results.table import PUBLISHED
from twinlens.callbacks.results.unified_tables import unified_tables

MAX_ROWS = 500
"""A longer table of tables/*.csv is shown up to here; the file has the rest."""
MAX_OPEN = 30
"""A longer table of comparisons is opened on demand."""
_NUMBERED = "table"
_NAMES = {"concepts": "Section 5.1"}


def table_views(run: RunFiles, rows: Sequence[Row] | None = None) -> Iterator[dict[str, Any]]:
    """Every table of tables/*.csv for the page, with the title of the paper's table, numbers rounded.

    Args:
        run: whose tables; a sweep has some of its own as well.
        rows: results that the tables were made of; by default the run's.
    """
    rows = published_rows(run) if rows is None else rows
    made = [*unified_tables(rows), *site_tables(rows), *neuron_level_tables(rows)]
    titles = {table.name: table.title for table in made}
    titles[comparison_table.NAME] = comparison_table.TITLE
    for name, (header, lines) in run.tables.items():
        number = name.removeprefix(_NUMBERED)
        columns = [_numbers([line[i] for line in lines]) for i in range(len(header))]
        read = [[line[i] if column is None else column[n] for i, column in enumerate(columns)]
                for n, line in enumerate(lines)]  # fmt: skip
        kept, *shown = merged(header, read)
        classes = [
            " ".join([*["num"][: columns[header.index(cell)] is not None],
                      *["published"][: cell.split(" ")[0] == PUBLISHED]])
            for cell in kept
        ]  # fmt: skip
        yield {
            "name": f"Table {number}" if number.isdigit() else _NAMES.get(name, name.replace("_", " ").capitalize()),
            "title": titles.get(name, ""),
            "header": kept,
            "classes": classes,
            "lines": shown[:MAX_ROWS],
            "folded": name == comparison_table.NAME and len(shown) > MAX_OPEN,
        }


def _numbers(cells: Sequence[str]) -> list[Cell] | None:
    """A column of numbers, None for a column of anything else."""
    if not any(cells):
        return None
    try:
        return [float(cell) if cell else None for cell in cells]
    except ValueError:
        return None
