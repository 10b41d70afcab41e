"""The shape of every evaluation's outcome: one row of results.csv."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Result:
    """One number.

    Attributes:
        metric: name of the number.
        value: the number.
        stderr: its standard error, where it has one.
        n: number of examples it rests on.
        k: length of a list, number of neurons or fraction, whichever the metric has.
        group: knowledge type, label or layer.
        reference_group: second axis of a table.
        variant: `key=value;…` of settings other than the default.
        method: name of the method it is about; empty for the model.
        split: split it was measured on.
        better: which direction is better, empty where neither is.
        control: whether it is of a control that the evaluation draws itself; those of methods are known by the method.

    Example:
        >>> from twinlens.attribution.evaluation.result import Result
        >>> row = Result("sufficiency", 87.5, stderr=4.2, n=40, k=10, method="ig", better="higher")
        >>> row.metric, row.value, row.split
        ('sufficiency', 87.5, 'test')
    """

    metric: str
    value: float
    stderr: float | None = None
    n: int | None = None
    k: float | None = None
    group: str = ""
    reference_group: str = ""
    variant: str = ""
    method: str = ""
    split: str = "test"
    better: Literal["higher", "lower", ""] = ""
    control: bool = False
