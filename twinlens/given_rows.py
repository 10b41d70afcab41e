"""Rows that a caller passes, written as the files that a run reads: texts, dicts, a Dataset or a DataLoader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError

Row = dict[str, Any]
OF_TEXTS = ("text", "prompt", "completion", "foil", "messages", "type", "group")
"""Columns that data=texts reads."""
LABEL = "label"


def rows_of(given: Any, name: str) -> list[Row]:
    """What was passed, row by row.

    Args:
        given: a text, a dict, a list of these, a Dataset of the library datasets, or a DataLoader, of whose dataset
            every row is taken in its own order.
        name: of the argument, for messages.

    Raises:
        UserError: none of these, nothing, or a row that is neither a text nor a dict.
    """
    if isinstance(given, str | Mapping):
        given = [given]
    rows = getattr(given, "dataset", given)  # of a DataLoader
    if hasattr(rows, "to_list") and not isinstance(rows, list):
        rows = rows.to_list()
    elif not isinstance(rows, Iterable) and hasattr(rows, "__getitem__") and hasattr(rows, "__len__"):
        rows = [rows[number] for number in range(len(rows))]
    if not isinstance(rows, Iterable):
        raise UserError(
            f"{name} is a {type(given).__name__}; expected a text, a dict, a list of these, a Dataset or a DataLoader: "
            f"pass e.g. {name}=['one text', 'another one']."
        )
    found = [_row(row, f"{name}[{number}]") for number, row in enumerate(rows)]
    if not found:
        raise UserError(f"{name} has no row; expected at least one text: pass e.g. {name}=['one text'].")
    return found


def write_texts(file: Path, rows: Sequence[Row], is_query: bool) -> str:
    """Rows as documents or queries of data=texts.

    Args:
        file: written.
        rows: see `rows_of`; a query's `text` is its prompt.
        is_query: whether they are what is explained.
    """
    kept = [{name: row[name] for name in OF_TEXTS if row.get(name) is not None} for row in rows]
    if is_query:
        kept = [{"prompt" if name == "text" else name: value for name, value in row.items()} for row in kept]
    return write_rows(file, [new or dict(row) for new, row in zip(kept, rows, strict=True)])


def text_columns(rows: Sequence[Row]) -> list[str]:
    """Columns that hold a text in every row, in the order of the first; the label is none of them.

    Raises:
        UserError: there is none.
    """
    names = [name for name in rows[0] if name != LABEL and all(isinstance(row.get(name), str) for row in rows)]
    if not names:
        raise UserError(
            f"the texts have the columns {', '.join(map(str, rows[0]))}; expected one that holds a text in every row: "
            "pass dicts such as {'text': 'one text', 'label': 'name of a class'}."
        )
    return names


def write_table(file: Path, rows: Sequence[Row], columns: Sequence[str], classes: Sequence[str], name: str) -> str:
    """Rows as a file of data=table; a label may be the number of a class.

    Args:
        file: written.
        rows: see `rows_of`.
        columns: of texts, see `text_columns`.
        classes: names of the model's classes.
        name: of the argument, for messages.

    Raises:
        UserError: a row without one of the columns.
    """
    written = []
    for number, row in enumerate(rows):
        lacking = [column for column in columns if not isinstance(row.get(column), str)]
        if lacking:
            raise UserError(
                f"{name}[{number}] has no text in {lacking[0]} (it has: {', '.join(map(str, row))}), which the "
                "explained texts have; expected the same columns in both: rename it."
            )
        label = row.get(LABEL)
        if isinstance(label, int) and str(label) not in classes and 0 <= label < len(classes):
            label = classes[label]
        written.append({**{column: row[column] for column in columns}, **({} if label is None else {LABEL: label})})
    return write_rows(file, written)


def write_rows(file: Path, rows: Sequence[Row]) -> str:
    """A JSONL file.

    Raises:
        UserError: a value that JSON does not have.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    except TypeError as error:
        raise UserError(
            f"the rows for {file.stem} hold a value that is no text and no number ({error}); expected texts: turn it "
            "into one, or leave the column out."
        ) from error
    return file.as_posix()


def _row(row: Any, where: str) -> Row:
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, Mapping) and row:
        return {str(name): value for name, value in row.items()}
    raise UserError(
        f"{where} is a {type(row).__name__}; expected a text or a dict with texts, from which the tokenizer makes the "
        "model's input: pass the texts themselves."
    )
