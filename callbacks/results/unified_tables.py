"""The first paper's tables made of results rows: tables/table1.csv … table5.csv, laid out as in print.

Every value column has the published figures, where there are any, in a column beside it: `published`, or
`published <column>` where a table has several. Rows of several seeds become their mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinlens.callbacks.results.results_csv import Cell, Row, format_number, protect
from twinlens.callbacks.store.files import write_text

PUBLISHED = "published"
Label = tuple[str, ...]

NAMES = {
    "ig": "NA",
    "influence_neurons": "IF-Neurons",
    "gradsim_neurons": "GS-Neurons",
    "random_neurons": "Random",
    "na_instances": "NA-Instances",
    "influence": "IF",
    "gradsim": "GS",
    "random_instances": "Random",
}
"""Names that the paper gives to the methods; others keep their own."""
ORDER = tuple(NAMES)
PAPER_R: Mapping[str, int] = {"sufficiency": 1, "comprehensiveness": 100}
PAPER_TOP = 10
GROUPS = {"random": 0, "most": 1, "least": 2}
DIVERSITY = ("cosine_similarity", "loss", "vocabulary", "input_length")


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
        """Write <folder>/<name>.csv, whole or not at all."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        writer.writerow([protect(name) for name in self.header])
        writer.writerows([_number(cell) for cell in line] for line in self.lines)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{self.name}.csv", stream.getvalue())
        return folder / f"{self.name}.csv"


def paper_tables(rows: Sequence[Row], n_train: Mapping[tuple[str, str], int] | None = None) -> list[Table]:
    """All tables that the rows allow.

    Args:
        rows: of results.csv, of one run or of a sweep's jobs, with `published` where known.
        n_train: training rows by (model, data), for the first line of Table 1.
    """
    rows = [row for row in rows if not row.get("variant") and isinstance(row.get("value"), int | float)]
    tables = [
        _table1(rows, n_train or {}),
        _table2(rows),
        _table3(rows),
        _table4(rows),
        _table5(rows),
        _concepts(rows),
    ]
    return [table for table in tables if table is not None]


def method_name(method: Cell) -> str:
    """The paper's name of a method with one's own in brackets, `IF (influence)`."""
    name = str(method or "")
    return f"{NAMES[name]} ({name})" if name in NAMES else name


def _table1(rows: Sequence[Row], n_train: Mapping[tuple[str, str], int]) -> Table | None:
    counted = [row for row in rows if row["metric"] == "unique_instances"]
    mine = [row for row in counted if row["k"] == PAPER_TOP] or counted
    full: list[Row] = []
    for model, data in dict.fromkeys((_text(row, "model"), _text(row, "data")) for row in mine):
        if (model, data) in n_train:
            full.append({"method": "Full", "model": model, "data": data, "value": n_train[model, data]})
    return grid(
        "table1",
        "Unique instances among the ten most influential training instances of every test instance",
        ("method", "model"),
        [*full, *_by_method(mine)],
        lambda row: (method_name(row["method"]), _text(row, "model")),
        lambda row: _text(row, "data"),
    )


def _table2(rows: Sequence[Row]) -> Table | None:
    asked = [row for row in rows if row["metric"] in PAPER_R and not row.get("group")]
    mine = [row for row in asked if row["k"] == PAPER_R[str(row["metric"])]]
    mine += [row for row in asked if row["metric"] not in {other["metric"] for other in mine}]
    return grid(
        "table2",
        "Percentage of predictions preserved while only the best neurons are kept (sufficiency) or while they are "
        "zeroed (comprehensiveness)",
        ("method", "model"),
        sorted(_by_method(mine), key=lambda row: list(PAPER_R).index(str(row["metric"]))),
        lambda row: (method_name(row["method"]), _text(row, "model")),
        lambda row: f"{row['metric']} @{format_number(row['k'])} {row['data']}",
        order=_by_method(mine),
    )


def _table3(rows: Sequence[Row]) -> Table | None:
    mine = [row for row in rows if row["metric"] in DIVERSITY]
    mine.sort(key=lambda row: DIVERSITY.index(str(row["metric"])))
    coefficients = [
        {**row, "metric": row["group"], "method": "", "group": "coefficient", "k": None}
        for row in rows
        if row["metric"] == "coefficient" and row["group"] in DIVERSITY
    ]

    def label(row: Row) -> Label:
        name, group = method_name(row["method"]), _text(row, "group")
        shown = "Coefficient" if group == "coefficient" else name if group == "random" else f"{name}-{group}"
        return (shown, format_number(row.get("k")), _text(row, "model"))

    order = sorted(mine, key=lambda row: (_sortable(row["k"]), GROUPS.get(_text(row, "group"), 9), _rank(row)))
    return grid(
        "table3",
        "Diversity of the first n % of the training instances, and the coefficients of a regression of accuracy on it",
        ("group", "n", "model"),
        [*coefficients, *mine],
        label,
        lambda row: f"{row['metric']} {row['data']}",
        order=[*coefficients, *order],
    )


def _table4(rows: Sequence[Row]) -> Table | None:
    mine = [row for row in rows if row["metric"] == "lexical_overlap"]
    mine.sort(key=lambda row: (_text(row, "model"), _sortable(row["k"])))
    return grid(
        "table4",
        "Lexical overlap between premise and hypothesis of the most influential training instances, for challenge "
        "instances mispredicted as entailment",
        ("data", "test instances", "method"),
        mine,
        lambda row: (_text(row, "data"), _text(row, "group"), method_name(row["method"])),
        lambda row: f"{row['model']} top-{format_number(row['k'])}",
        order=sorted(_by_method(mine), key=lambda row: _text(row, "group")),
    )


def _table5(rows: Sequence[Row]) -> Table | None:
    columns = {"validation": "dev accuracy", "test": "test accuracy"}
    mine = [row for row in rows if row["evaluation"] == "accuracy" and row["metric"] == "accuracy"]
    mine = [row for row in mine if row["split"] in columns and not row.get("group")]
    return grid(
        "table5",
        "Accuracy of the model itself",
        ("data", "model"),
        sorted(mine, key=lambda row: list(columns).index(str(row["split"]))),
        lambda row: (_text(row, "data"), _text(row, "model")),
        lambda row: columns[str(row["split"])],
    )


def _concepts(rows: Sequence[Row]) -> Table | None:
    return grid(
        "concepts",
        "Concepts of questions and their coverage",
        ("data", "metric", "method", "k"),
        [row for row in rows if row["evaluation"] == "concepts"],
        lambda row: (
            _text(row, "data"),
            _text(row, "metric"),
            method_name(row["method"]),
            format_number(row.get("k")),
        ),
        lambda row: _text(row, "model"),
    )


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

    Columns stand in the order of `rows`; lines in that of `order`, by default the same.
    """
    if not rows:
        return None
    columns = list(dict.fromkeys(column(row) for row in rows))
    cells: dict[tuple[Label, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((label(row), column(row)), []).append(row)
    beside = {shown for (_, shown), found in cells.items() if any(row.get(PUBLISHED) is not None for row in found)}
    header = list(keys)
    for shown in columns:
        header.append(shown)
        if shown in beside:
            header.append(PUBLISHED if len(columns) == 1 else f"{PUBLISHED} {shown}")
    lines: list[list[Cell]] = []
    for line in dict.fromkeys(label(row) for row in (order if order is not None else rows)):
        values: list[Cell] = list(line)
        for shown in columns:
            found = cells.get((line, shown), [])
            values.append(_mean(found))
            if shown in beside:
                values.append(next((row[PUBLISHED] for row in found if row.get(PUBLISHED) is not None), None))
        lines.append(values)
    return Table(name, title, header, lines)


def _by_method(rows: Sequence[Row]) -> list[Row]:
    """Model by model, and within it in the paper's order of methods."""
    models = list(dict.fromkeys(_text(row, "model") for row in rows))
    return sorted(rows, key=lambda row: (models.index(_text(row, "model")), _rank(row)))


def _rank(row: Row) -> int:
    """Random first, then the paper's methods in its order, then others."""
    method = _text(row, "method")
    return 0 if method.startswith("random") else 1 + ORDER.index(method) if method in ORDER else 99


def _mean(rows: Sequence[Row]) -> Cell:
    values = [float(row["value"]) for row in rows if isinstance(row["value"], int | float)]
    return sum(values) / len(values) if values else None


def _number(cell: Cell) -> Cell:
    """Numbers with six significant digits, more than any table prints; text that looks like a formula protected."""
    if isinstance(cell, float):
        return format_number(cell) if cell.is_integer() else f"{cell:.6g}"
    return protect(cell)


def _text(row: Row, name: str) -> str:
    return "" if row.get(name) is None else str(row[name])


def _sortable(k: Cell) -> float:
    return float(k) if isinstance(k, int | float) else float("inf")
