"""The shape of every evaluation's outcome: one row of results.csv."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor


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
        low, high: ends of the 95 % interval, where it is not value ± 1.96 stderr: of proportions Wilson's.
        samples: of each example what the value is the mean of, [n], or [runs, n] where several fits of the model were
            measured on the same examples; None: it is no mean over examples. Comparisons pair them.
        unit: what a mean of 1 over the samples is in the value: 100 for per cent, n for counts.

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
    low: float | None = None
    high: float | None = None
    samples: Tensor | None = field(default=None, compare=False, repr=False)
    unit: float = field(default=1.0, compare=False, repr=False)
