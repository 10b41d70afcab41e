"""Certificates of a run's predictions as the page keeps them, from the files that `evaluation=certificate` leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.certified_changes import REFIT
from twinlens.callbacks.evaluate.certificate import COLUMNS
from twinlens.callbacks.report.worth import percent
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.formatting import format_row_value
from twinlens.callbacks.results.results_csv import read_table
from twinlens.callbacks.results.run_files import RunFiles

COVERAGE = "certificate_coverage"
JOINT = "joint"
_SAME = (
    "metric", "evaluation", "method", "group", "reference_group", "variant", "seed", "model", "data", "split",
)  # fmt: skip
"""Columns in which the rows of one certificate agree."""
_AGAIN = "run the evaluation again"


def certificates(run: RunFiles, places: Mapping[int, int]) -> list[dict[str, Any]]:
    """Every evaluation of the run that certifies predictions, with the lines of the examples on the page.

    Each has its `name`, `methods`, what it takes away (`removed`, `ablated`), the `level` of its intervals, and
    `lines`: row of the page → [part, truth, predicted, low, high, realised, whether it holds], changes in nats.

    Args:
        places: index of an example → its row on the page.

    Raises:
        UserError: a file that cannot be read, named.
    """
    found = []
    for name in dict.fromkeys(str(row["evaluation"]) for row in run.results if row["metric"] == COVERAGE):
        path = run.path / f"{name}_examples.csv"
        if path.is_file():
            lines: dict[int, list[list[Any]]] = {}
            for number, cells in read_table(path, COLUMNS, _AGAIN):
                try:
                    index, changes = int(cells["index"]), [float(cells[column]) for column in COLUMNS[4:8]]
                except ValueError as error:
                    raise UserError(
                        f"line {number} of {path} cannot be read ({error}); expected numbers as evaluation=certificate "
                        f"writes them: {_AGAIN}."
                    ) from None
                if index in places:
                    line = [cells["part"], cells["truth"], *changes, cells["holds"] == "true"]
                    lines.setdefault(places[index], []).append(line)
            found.append({"name": name, **_of(run.results, name), "lines": lines})
    return found


def certified(rows: Sequence[Row]) -> list[str]:
    """What the certificates of a run say in a sentence each: how often and how well the joint change was predicted."""
    return [
        _sentence(row, rows)
        for row in rows
        if row["metric"] == COVERAGE and row["group"] == JOINT and row["reference_group"] == REFIT
    ]


def _sentence(row: Row, rows: Sequence[Row]) -> str:
    said = _of([row], str(row["evaluation"]))
    beside = {**row, "metric": "certificate_pearson"}
    same = [other for other in rows if all(other[name] == beside[name] for name in _SAME)]
    told = f", and predicted and realised change correlate with {format_row_value(same[0])}" if same else ""
    return (
        f"Without the first {said['removed']} instances and {said['ablated']} neurons of {said['methods']}, "
        f"{percent(float(row['value'] or 0))} of predictions change within their "
        f"{percent(100 * said['level'])} intervals{told}."
    )


def _of(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Methods and settings of a certificate by its rows of results.csv."""
    row = next(row for row in rows if row["metric"] == COVERAGE and str(row["evaluation"]) == name)
    settings = dict(part.partition("=")[::2] for part in str(row["variant"] or "").split(";") if part)
    return {
        "methods": str(row["method"] or "").replace("+", " and "),
        "removed": int(float(row["k"] or 0)),
        "ablated": int(settings.get("ablated", 10)),
        "level": float(settings.get("level", 0.9)),
    }
