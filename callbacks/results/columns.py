"""Columns of results.csv: the one place that says which there are, what their cells hold and what they are for.

A new field of an evaluation's `Result` is a column by itself, after those below; any other column is one line below.
The writer, the reader, the keys of summary.csv, the report's and the printed tables and the figures follow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

from twinlens.attribution.evaluation.base_line import BASE_LINE
from twinlens.attribution.evaluation.ground_truth.lds import OTHER_SEED
from twinlens.attribution.evaluation.result import Result

Cell = str | int | float | None
Row = Mapping[str, Cell]
Kind = Literal["text", "whole", "number", "place"]


@dataclass(frozen=True)
class Column:
    """One column of results.csv.

    Attributes:
        kind: what its cells hold: `text`, a `whole` number, a `number`, or a `place` (a number or a word).
        about: whether it says what a row's number is of. Rows that agree in all such columns measure one thing.
        needed: whether a file without it holds no results.
        before: what stands for it in a file that was written before the column came, from the row's other cells.
        means: what its cells say, in words, for docs/results.md and whoever fills such a file.
    """

    kind: Kind = "text"
    about: bool = True
    needed: bool = False
    before: Callable[[Row], Cell] | None = None
    means: str = ""


def _of_result(known: Mapping[str, Column]) -> dict[str, Column]:
    """Columns of the fields of `Result` that have none yet; numbers are taken for measurements."""
    hints = get_type_hints(Result)
    return {name: _column(hint) for name, hint in hints.items() if name not in known and name not in NOT_WRITTEN}


def _column(hint: Any) -> Column:
    types = {part for part in (get_args(hint) or (hint,)) if part is not NoneType}
    if types == {int}:
        return Column("whole", about=False)
    return Column("number", about=False) if types <= {int, float} else Column("text")


NOT_WRITTEN = ("better", "samples", "unit")
"""Fields of `Result` that are about a metric as a whole, or about single examples."""

_FORMER = re.compile(r"random(_|$)")
"""Names of controls in files of 0.1.0, which have no column for them."""
SETTING = "setting"
"""Column of `key=value;…`: what is not as shipped of the method itself; `variant` keeps the evaluation's settings."""
CONTROL = "control"
"""Column that is `true` in the rows of a control, else empty; of 0.1.0 controls are known by their names."""

_LISTED = {
    "model": Column(needed=True, means="name of the model"),
    "data": Column(needed=True, means="name of the data"),
    "seed": Column("whole", about=False, means="seed of the training; rows that differ in it alone are repetitions"),
    "split": Column(means="split that was measured on: train, validation or test"),
    "method": Column(means="name of the method that the number is of; empty: of the model itself"),
    "evaluation": Column(needed=True, means="name of the evaluation"),
    "metric": Column(needed=True, means="name of the number"),
    "k": Column("place", means="length of a list, number of neurons or share, whichever the metric has"),
    "group": Column(means="part that the number is of: a label, a layer, a type"),
    "reference_group": Column(means="second axis of a table: the other method, the other group"),
    "variant": Column(means="settings of the evaluation other than the default, key=value with ; between"),
    "explain": Column(means="target that the method explains; empty: the predicted class"),
    "value": Column("number", about=False, needed=True, means="the number"),
    "stderr": Column("number", about=False, means="its standard error"),
    "n": Column("whole", about=False, means="number of examples that it rests on"),
    CONTROL: Column(
        about=False,
        before=lambda row: "true" if _FORMER.match(str(row["method"] or "")) else None,
        means="true in rows of a control, else empty",
    ),
    SETTING: Column(means="settings of the method other than as shipped, key=value with ; between"),
    "low": Column("number", about=False, means="lower end of the 95 % interval"),
    "high": Column("number", about=False, means="upper end of the 95 % interval"),
}
COLUMNS: Mapping[str, Column] = _LISTED | _of_result(_LISTED)
"""Name → column, in the order of the file."""

NEEDED = tuple(name for name, column in COLUMNS.items() if column.needed)
ABOUT = tuple(name for name, column in COLUMNS.items() if column.about)
"""What a row's number is of, apart from the seed."""
AXES = ("model", "data", "split", "method", "evaluation", "metric", "k", "group", "reference_group", "explain")
"""Columns that tables and figures have a place of their own for."""
SETTINGS = tuple(name for name in ABOUT if name not in AXES)
"""Columns of settings other than the default: `variant`, and each column that came later and has no other place."""

DIRECTIONS: Mapping[str, str] = {
    "accuracy": "higher",
    "macro_f1": "higher",
    "sufficiency": "higher",  # share of predictions preserved while only the top neurons are kept
    "comprehensiveness": "lower",  # share of predictions preserved while the top neurons are zeroed
    "mrr": "higher",
}


def real_of(cell: Any) -> float:
    """A cell as a number, NaN for what is none or not finite."""
    return float(cell) if isinstance(cell, int | float) and math.isfinite(cell) else float("nan")


def value_of(row: Row) -> float:
    """A row's value as a number, as `real_of`."""
    return real_of(row["value"])


def settings_text(row: Row) -> str:
    """A row's settings other than the default, as `key=value; …`; empty for the default."""
    return "; ".join(str(row[name]) for name in SETTINGS if row.get(name))


def with_setting(name: str, row: Row) -> str:
    """A method's name as tables and figures show it, `ig [preset=reference]` where it is not as shipped."""
    return f"{name} [{row[SETTING]}]" if row.get(SETTING) else name


def variant_text(row: Row) -> str:
    """What `settings_text` says of the evaluation, without the method's own settings."""
    return settings_text({**row, SETTING: None})


def is_control(row: Row) -> bool:
    """Whether a row is of a control, which the others are compared with."""
    return row.get(CONTROL) == "true"


def is_chance(row: Row) -> bool:
    """Whether a row is what chance alone reaches: of a control, but neither a base line without any list nor models
    of the same rows under another seed."""
    return is_control(row) and str(row["method"]).partition("/")[0] not in (BASE_LINE, OTHER_SEED)
