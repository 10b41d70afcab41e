"""Tables on subsets of the train split: their labels, the regression on their diversity, the designed series."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.callbacks.results.columns import Row, with_setting
from twinlens.callbacks.results.formatting import format_number
from twinlens.callbacks.results.table import Table, cell_text, grid, sortable

REGRESSION = ("coefficient", "coefficient_standardised", "vif")
SERIES = ("slope", "slope_standardised", "change_over_series", "slope_beside_others", "vif")


def subset_tables(rows: Sequence[Row]) -> list[Table]:
    """Those that the rows allow, see the module."""
    found = [_labels(rows), _regression(rows), _series(rows), _designed(rows)]
    return [table for table in found if table is not None]


def _labels(rows: Sequence[Row]) -> Table | None:
    mine = [row for row in rows if row["metric"] in ("label_entropy", "label_count")]
    return grid(
        "retraining_labels",
        "Labels of the train rows that models were fitted on: entropy (nats) and rows of each label",
        ("group", "n", "rows", "model", "data"),
        mine,
        lambda row: (
            with_setting("-".join(filter(None, (cell_text(row, "method"), cell_text(row, "group")))), row),
            format_number(row.get("k")),
            cell_text(row, "n"),
            cell_text(row, "model"),
            cell_text(row, "data"),
        ),
        lambda row: "entropy" if row["metric"] == "label_entropy" else cell_text(row, "reference_group"),
        order=sorted(mine, key=lambda row: sortable(row["k"])),
    )


def _regression(rows: Sequence[Row]) -> Table | None:
    return grid(
        "diversity_regression",
        "Regression of accuracy on the diversity of subsets: coefficients as they are and in standard deviations, and "
        "by how much correlation with the other metrics inflates the square of the error (VIF)",
        ("metric", "model", "data", "subsets"),
        [row for row in rows if row["evaluation"] == "diversity" and row["metric"] in REGRESSION],
        lambda row: (cell_text(row, "group"), cell_text(row, "model"), cell_text(row, "data"), cell_text(row, "n")),
        lambda row: cell_text(row, "metric"),
    )


def _series(rows: Sequence[Row]) -> Table | None:
    return grid(
        "diversity_series",
        "Accuracy over subsets of one label mix whose cosine similarity is set by construction",
        ("of", "model", "data", "subsets"),
        [row for row in rows if row["evaluation"] == "diversity_series" and row["metric"] in SERIES],
        lambda row: (cell_text(row, "metric"), cell_text(row, "model"), cell_text(row, "data"), cell_text(row, "n")),
        lambda row: "value",
    )


def _designed(rows: Sequence[Row]) -> Table | None:
    return grid(
        "diversity_series_subsets",
        "The subsets of the designed series, from the most diverse to the most uniform",
        ("subset", "model", "data"),
        [row for row in rows if str(row["metric"]).startswith("designed_")],
        lambda row: (cell_text(row, "reference_group"), cell_text(row, "model"), cell_text(row, "data")),
        lambda row: str(row["metric"]).removeprefix("designed_"),
    )
