"""Rows that a caller passes, written as the files that a run reads: texts, dicts, a Dataset or a DataLoader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from twinlens.attribution.errors import UserError
from twinlens.data.documents import OF_QUERIES, TEXTS_OF_QUERIES
from twinlens.value_words import kind_in_words

Row = dict[str, Any]
OF_TEXTS = ("text", "messages", *OF_QUERIES)
"""Columns that data=texts reads."""
LABEL = "label"
NO_LABEL = -1
"""What data sets write where a row has no label."""


def rows_of(given: Any, name: str) -> list[Row]:
    """What was passed, row by row.

    Args:
        given: a text, a dict, a list of these, a table (of datasets, pandas, polars or pyarrow), a Dataset of torch, or
            a DataLoader, of whose dataset every row is taken in its own order.
        name: of the argument, for messages.

    Raises:
        UserError: none of these, nothing, a row that is neither a text nor a dict, or a DataLoader that picks rows.
    """
    if isinstance(given, Mapping) and (columns := [key for key, value in given.items() if _is_column(value)]):
        raise UserError(
            f"{name} is {kind_in_words(given)} whose {columns[0]} holds many rows; expected rows: pass a list of "
            f"dicts, of several splits one of them, {name}[{columns[0]!r}]."
        )
    if isinstance(given, set | frozenset):
        raise UserError(
            f"{name} is a set, which has no order, so that no index would say which row it is; expected rows in order: "
            f"pass sorted({name})."
        )
    if isinstance(given, str | Mapping):
        given = [given]
    rows = _dataset_of(given, name) if isinstance(given, DataLoader) else given
    tables = ("to_list", "to_pylist", "to_dicts")  # of datasets, pyarrow and polars
    convert = next((each for each in tables if hasattr(rows, each) and not isinstance(rows, list)), None)
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):  # of pandas
        rows = rows.to_dict("records")
    elif convert is not None:
        rows = getattr(rows, convert)()
    elif not isinstance(rows, Iterable) and hasattr(rows, "__getitem__") and hasattr(rows, "__len__"):
        rows = [rows[number] for number in range(len(rows))]
    if not isinstance(rows, Iterable):
        raise UserError(
            f"{name} is {kind_in_words(given)}; expected a text, a dict, a list of these, a Dataset or a DataLoader: "
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

    Raises:
        UserError: a query with a text and a prompt, or with a misspelt column.
    """
    kept = [{name: row[name] for name in OF_TEXTS if row.get(name) is not None} for row in rows]
    if is_query:
        for number, row in enumerate(rows):
            _require_clear(row, f"texts[{number}]")
        kept = [{"prompt" if name == "text" else name: value for name, value in row.items()} for row in kept]
    return write_rows(file, [new or dict(row) for new, row in zip(kept, rows, strict=True)])


def text_columns(rows: Sequence[Row]) -> list[str]:
    """Columns that hold a text in every row, in the order of the first; the label is none of them.

    Raises:
        UserError: there is none.
    """
    _require_label(rows[0], "texts[0]")
    names = [name for name in rows[0] if name != LABEL and all(isinstance(row.get(name), str) for row in rows)]
    if not names:
        raise UserError(
            f"the texts have the columns {', '.join(map(str, rows[0]))}; expected one that holds a text in every row: "
            "pass dicts such as {'text': 'one text', 'label': 'name of a class'}."
        )
    return names


def label_names(given: Any) -> list[str]:
    """What numbers of labels stand for in a Dataset that says it; else nothing."""
    features = getattr(getattr(given, "dataset", given), "features", None)
    label = features.get(LABEL) if isinstance(features, Mapping) else None
    return list(getattr(label, "names", None) or [])


def by_number(names: Sequence[str], classes: Sequence[str], name: str) -> list[str]:
    """The model's classes by the numbers of a data set whose own order of classes may be another one.

    Args:
        names: what the numbers stand for in the data, see `label_names`.
        classes: of the model, in its order.
        name: of the argument, for messages.

    Returns:
        As `names`, in the model's words; nothing where data and model have no word in common, as with LABEL_0.

    Raises:
        UserError: some of the names are classes of the model, and others are none.
    """
    known = {each.lower(): each for each in classes}
    alien = [each for each in names if each.lower() not in known]
    if alien and len(alien) < len(names):
        raise UserError(
            f"{name} numbers its labels by names of which the model has some and not {alien[0]!r}; expected the "
            f"model's classes {', '.join(classes)}: write labels as text."
        )
    return [] if alien else [known[each.lower()] for each in names]


def write_table(
    file: Path,
    rows: Sequence[Row],
    columns: Sequence[str],
    classes: Sequence[str],
    name: str,
    named: Sequence[str] = (),
) -> str:
    """Rows as a file of data=table; a label may be the number of a class.

    Args:
        file: written.
        rows: see `rows_of`.
        columns: of texts, see `text_columns`.
        classes: names of the model's classes.
        name: of the argument, for messages.
        named: classes by the numbers of labels, see `by_number`; empty: in the model's order.

    Raises:
        UserError: a row without one of the columns, or with a label that means two classes.
    """
    written = []
    for number, row in enumerate(rows):
        lacking = [column for column in columns if not isinstance(row.get(column), str)]
        if lacking:
            raise UserError(
                f"{name}[{number}] has no text in {lacking[0]} (it has: {', '.join(map(str, row))}), which the "
                "explained texts have; expected the same columns in both: rename it."
            )
        _require_label(row, f"{name}[{number}]")
        label = row.get(LABEL)
        if isinstance(label, float) and label.is_integer():  # what tables make of numbers beside empty cells
            label = int(label)
        if label == NO_LABEL and str(label) not in classes:
            label = None
        if isinstance(label, int) and 0 <= label < len(named):
            label = named[label]
        elif isinstance(label, int):
            label = _class_of(label, classes, f"{name}[{number}]")
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
        return {str(name): _plain(value) for name, value in row.items()}
    what = "an empty dict" if isinstance(row, Mapping) else kind_in_words(row)
    raise UserError(
        f"{where} is {what}; expected a text or a dict with texts, from which the tokenizer makes the model's input: "
        "pass the texts themselves; of a DataLoader the rows of its dataset are read, not what collate_fn makes."
    )


def _plain(value: Any) -> Any:
    """A single number of NumPy or torch as Python has it, and NaN, which tables have for nothing, as None."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def _class_of(label: int, classes: Sequence[str], where: str) -> str | int:
    """Name of the class that a number stands for; the number itself where there is none."""
    numbered = classes[label] if 0 <= label < len(classes) else None
    named = str(label) if str(label) in classes else None
    if numbered is not None and named is not None and numbered != named:
        raise UserError(
            f"{where} has the label {label}, which is the class {label} ({numbered!r}) by number and another one by "
            f"name; expected a label that says which: write the name as text, {numbered!r} or {named!r}."
        )
    return named or numbered or label


def _is_column(value: Any) -> bool:
    """Whether a value of a dict stands for many rows, as in a dict of columns or of splits."""
    return not isinstance(value, str | bytes | Mapping) and hasattr(value, "__len__") and not _is_turns(value)


def _is_turns(value: Any) -> bool:
    """Whether it is a chat."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _dataset_of(loader: DataLoader[Any], name: str) -> Any:
    """The dataset of a loader that reads all of it."""
    sampler = loader.sampler if type(loader.batch_sampler) in (BatchSampler, type(None)) else loader.batch_sampler
    whole = type(sampler) is SequentialSampler or isinstance(loader.dataset, IterableDataset)
    if type(sampler) is RandomSampler:
        whole = not sampler.replacement and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    if not whole:
        raise UserError(
            f"{name} is a DataLoader with {kind_in_words(sampler)}, which picks rows of its dataset, while every row "
            "of the dataset is read here; expected the rows that are meant: pass Subset(dataset, indices)."
        )
    return loader.dataset


def _require_clear(row: Row, where: str) -> None:
    """Refuse a query that names its prompt twice, or a column that looks like one that is read."""
    if row.get("text") is not None and row.get("prompt") is not None:
        raise UserError(f"{where} has a text and a prompt, which are two words for one thing; expected one: drop one.")
    for column in row:
        near = get_close_matches(column, TEXTS_OF_QUERIES, n=1, cutoff=0.85)
        if near and column not in TEXTS_OF_QUERIES and row.get(near[0]) is None:
            raise UserError(
                f"{where} has the column {column}, which is not read; expected {near[0]}: rename the column."
            )


def _require_label(row: Row, where: str) -> None:
    """Refuse a column that looks like that of the labels."""
    near = [] if LABEL in row else get_close_matches(LABEL, [name.lower() for name in row], n=1, cutoff=0.75)
    if near:
        raise UserError(f"{where} has the column {near[0]} and no label; expected {LABEL}: rename the column.")
