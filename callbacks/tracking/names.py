"""Names of results in trackers: `method/evaluation/metric`, made of the columns of results.csv.

Every column that tells a run's rows apart has its place in the name, so that two rows never share one, and a column
that comes later is in the names by itself. Settings of methods are not: a number has one name in all jobs of a sweep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from twinlens.callbacks.results.columns import ABOUT, SETTING, Cell, Row

LONGEST = 240
"""Signs of a name; MLflow takes 250."""
SAME_IN_A_RUN = ("model", "data", "explain", SETTING)
"""Columns that say nothing beside a run and a method's name. They stand in the configuration: a number whose name held
them would have another name in every job of a sweep over them."""
_PLACED = ("method", "evaluation", "split", "metric", "k")
_OTHERS = tuple(name for name in ABOUT if name not in (*SAME_IN_A_RUN, *_PLACED))
_SIGNS = re.compile(r"[^A-Za-z0-9_. -]+")


def number_name(row: Row, *before: str) -> str:
    """The name of a row's number, `ig/faithfulness/sufficiency_at_10`.

    In this order, leaving out what is empty: method, evaluation, split (where it is not `test`), group, reference
    group, the evaluation's settings other than the default, metric with `_at_` its k. Signs that not every tracker
    takes become `-`.

    Args:
        row: of results.csv or summary.csv.
        before: parts that lead the name.
    """
    split = row.get("split")
    parts = (
        *before, row.get("method"), row.get("evaluation"), None if split == "test" else split,
        *(row.get(name) for name in _OTHERS), f"{row['metric']}{_at(row.get('k'))}",
    )  # fmt: skip
    return "/".join(_part(part) for part in parts if part not in (None, ""))[:LONGEST]


def numbers_of(rows: Iterable[Row], more: Mapping[str, float] | None = None) -> dict[str, float]:
    """Name → number of all rows, and others that have a name already; each name is given once.

    Of names that differ only in characters which not every tracker takes, later ones are numbered: `…-2`.

    Args:
        rows: of results.csv.
        more: other numbers of the run, such as `time/fit`.
    """
    found: dict[str, float] = {}
    for name, value in [*((number_name(row), row.get("value")) for row in rows), *(more or {}).items()]:
        if isinstance(value, int | float):
            found[free_name(name, found)] = float(value)
    return found


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that are finite: a tracker has no place for others."""
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def free_name(name: str, taken: Mapping[str, object]) -> str:
    """The name, or the first of `name-2`, `name-3` … that is not taken."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}-{count}"
    return free


def _at(k: Cell) -> str:
    return "" if k is None else f"_at_{k:g}" if isinstance(k, int | float) else f"_at_{k}"


def _part(cell: object) -> str:
    return _SIGNS.sub("-", str(cell)).strip("-. ") or "_"
