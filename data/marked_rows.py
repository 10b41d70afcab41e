"""Columns that mark documents and queries: which documents tell what a query asks, which queries go together."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import listed, quoted
from twinlens.data.file_readers import FileRows

EVIDENCE, GROUP = "evidence", "group"
"""Columns of the splits, whatever they are called in the files."""


def marks(table: FileRows, column: str, option: str) -> list[str]:
    """A column's cells as text, "" where a row has none.

    Args:
        table: of documents or queries.
        column: its name in the file.
        option: of the configuration, for messages.

    Raises:
        UserError: no row has that column, or a cell holds more than one value.
    """
    if not any(column in row for row in table.rows):
        names = list(dict.fromkeys(name for row in table.rows for name in row))
        raise UserError(
            f"{option}={column} names a column that {table.name} does not have (it has: {listed(names)}), expected "
            "one of these: correct it, or write null."
        )
    found = []
    for at, row in enumerate(table.rows):
        value = row.get(column)
        if value is not None and not isinstance(value, str | int | float):
            raise UserError(
                f"{table.where(at)} has {quoted(value)} in the column {column} ({option}), expected a word or a "
                "number, or nothing: write one value."
            )
        found.append("" if value is None else str(value))
    return found


def require_evidence(documents: Sequence[str], queries: Sequence[str], column: str) -> None:
    """Refuse marks that lead from no query to a document.

    Raises:
        UserError: naming the values of both sides.
    """
    told = {mark for mark in documents if mark}
    asked = {mark for mark in queries if mark}
    if not told & asked:
        sides = " and ".join(listed(sorted(side)[:3]) or "nothing" for side in (asked, told))
        raise UserError(
            f"data.evidence={column} marks queries and documents that have no value in common ({sides}), expected of "
            "each query that is marked the documents that tell its answer: give both the same values."
        )
