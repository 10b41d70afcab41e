"""The first paper's tables made of results rows: tables/table1.csv … table5.csv, laid out as in print.

Every value column has the published figures, where there are any, in a column beside it: `published`, or
`published <column>` where a table has several. Rows of several seeds become their mean;
a method that is not as shipped has a line of its own, `IF (influence) [damping=1]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twinlens.callbacks.results.columns import Cell, Row, is_control, variant_text, with_setting
from twinlens.callbacks.results.formatting import format_number
from twinlens.callbacks.results.subset_tables import subset_tables
from twinlens.callbacks.results.table import Label, Table, cell_text, grid, sortable
from twinlens.callbacks.results.truth_tables import truth_tables

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


def unified_tables(rows: Sequence[Row], n_train: Mapping[tuple[str, str], int] | None = None) -> list[Table]:
    """All tables that the rows allow.

    Args:
        rows: of results.csv, of one run or of a sweep's jobs, with `published` where known.
        n_train: training rows by (model, data), for the first line of Table 1.
    """
    rows = [row for row in rows if not variant_text(row) and isinstance(row.get("value"), int | float)]
    tables = [
        _table1(rows, n_train or {}),
        _table2(rows),
        _table3(rows),
        _table4(rows),
        _table5(rows),
        _concepts(rows),
        *subset_tables(rows),
        *truth_tables(rows),
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
    for model, data in dict.fromkeys((cell_text(row, "model"), cell_text(row, "data")) for row in mine):
        if (model, data) in n_train:
            full.append({"method": "Full", "model": model, "data": data, "value": n_train[model, data]})
    return grid(
        "table1",
        "Unique instances among the ten most influential training instances of every test instance",
        ("method", "model"),
        [*full, *_by_method(mine)],
        lambda row: (_named(row), cell_text(row, "model")),
        lambda row: cell_text(row, "data"),
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
        lambda row: (_named(row), cell_text(row, "model")),
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
        name, group = _named(row), cell_text(row, "group")
        shown = "Coefficient" if group == "coefficient" else name if group == "random" else f"{name}-{group}"
        return (shown, format_number(row.get("k")), cell_text(row, "model"))

    order = sorted(mine, key=lambda row: (sortable(row["k"]), GROUPS.get(cell_text(row, "group"), 9), _rank(row)))
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
    mine.sort(key=lambda row: (cell_text(row, "model"), sortable(row["k"])))
    return grid(
        "table4",
        "Lexical overlap between premise and hypothesis of the most influential training instances, for challenge "
        "instances mispredicted as entailment",
        ("data", "test instances", "method"),
        mine,
        lambda row: (cell_text(row, "data"), cell_text(row, "group"), _named(row)),
        lambda row: f"{row['model']} top-{format_number(row['k'])}",
        order=sorted(_by_method(mine), key=lambda row: cell_text(row, "group")),
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
        lambda row: (cell_text(row, "data"), cell_text(row, "model")),
        lambda row: columns[str(row["split"])],
    )


def _concepts(rows: Sequence[Row]) -> Table | None:
    return grid(
        "concepts",
        "Concepts of questions and their coverage",
        ("data", "metric", "method", "k"),
        [row for row in rows if row["evaluation"] == "concepts"],
        lambda row: (
            cell_text(row, "data"),
            cell_text(row, "metric"),
            _named(row),
            format_number(row.get("k")),
        ),
        lambda row: cell_text(row, "model"),
    )


def _named(row: Row) -> str:
    return with_setting(method_name(row["method"]), row)


def _by_method(rows: Sequence[Row]) -> list[Row]:
    """Model by model, and within it in the paper's order of methods."""
    models = list(dict.fromkeys(cell_text(row, "model") for row in rows))
    return sorted(rows, key=lambda row: (models.index(cell_text(row, "model")), _rank(row)))


def _rank(row: Row) -> int:
    """Controls first, then the paper's methods in its order, then others."""
    method = cell_text(row, "method")
    return 0 if is_control(row) else 1 + ORDER.index(method) if method in ORDER else 99
