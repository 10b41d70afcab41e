"""The paper's tables of a run, and the published figures beside its results."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.callbacks.results.neuron_level_tables import knowledge_tables
from twinlens.callbacks.results.published import explain_mismatch, with_published
from twinlens.callbacks.results.results_csv import Cell, format_number, format_table
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.unified_tables import PUBLISHED, paper_tables

MAX_ROWS = 500
"""A longer table of tables/*.csv is shown up to here; the file has the rest."""
LISTS = frozenset({"vocabulary_token", "segment_logp", "segment_prob"})
"""Metrics with a row for every entry of a list, or point of a curve, too long for a terminal; tables and
figures show them."""
_NUMBERED = "table"
_NAMES = {"concepts": "Section 5.1"}


def n_train(run: RunFiles) -> int | None:
    """Training rows of a run, None where it keeps none."""
    return len(run.examples("train").dataset) if (run.path / "examples" / "train").is_dir() else None


def published_rows(run: RunFiles) -> list[dict[str, Cell]]:
    """The rows of results.csv with the paper's figure in `published` wherever the run is comparable with it."""
    return with_published(run.results, run.config, n_train(run))


def printed_results(run: RunFiles, directions: Mapping[str, str], told: Collection[str] = ()) -> str:
    """What the terminal shows of results.csv, with a note where published figures are left out.

    Args:
        run: its files.
        directions: metric → which direction is better.
        told: evaluations that have printed their results in words already.
    """
    rows = published_rows(run)
    shown = [row for row in rows if row["evaluation"] not in told and row["metric"] not in LISTS]
    rest = (
        f"{len(rows) - len(shown)} more rows, of lists and maps, are in results.csv" if len(shown) < len(rows) else ""
    )
    table = format_table(shown, directions) if shown or not rest else ""
    return "\n".join(filter(None, [table, rest, mismatch_note(run)]))


def mismatch_note(run: RunFiles) -> str:
    """Why published figures are left out although model and data have some; empty otherwise."""
    return explain_mismatch(run.results, run.config, n_train(run))


def train_sizes(run: RunFiles) -> dict[tuple[str, str], int]:
    """Training rows by (model, data) of the run's results."""
    size = n_train(run)
    return {} if size is None else {(str(row["model"]), str(row["data"])): size for row in run.results}


def write_tables(run: RunFiles) -> list[Path]:
    """Write the paper's tables that the run's results allow to <run>/tables."""
    rows = published_rows(run)
    tables = [*paper_tables(rows, train_sizes(run)), *knowledge_tables(rows)]
    return [table.write(run.path / "tables") for table in tables]


def paper_table_views(run: RunFiles) -> Iterator[dict[str, Any]]:
    """Every table of tables/*.csv for the page, with the title of the paper's, numbers rounded."""
    rows = published_rows(run)
    titles = {table.name: table.title for table in [*paper_tables(rows), *knowledge_tables(rows)]}
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
