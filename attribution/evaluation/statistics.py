"""Means with standard errors, intervals of proportions and of means, and areas under curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log, sqrt

import torch
from torch import Tensor


def mean_and_error(values: Tensor | Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation / √n of independent values, [n]; no error for a single value.

    Example:
        >>> from twinlens.attribution.evaluation.statistics import mean_and_error
        >>> mean_and_error([1.0, 3.0]), mean_and_error([5.0])
        ((2.0, 1.0), (5.0, None))
    """
    numbers = torch.as_tensor(values, dtype=torch.float64)
    error = float(numbers.std() / len(numbers) ** 0.5) if len(numbers) > 1 else None
    return float(numbers.mean()), error


NORMAL_975 = 1.959964
"""Two-sided 95 % of a normal distribution lie within so many standard deviations."""
_T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def wilson(share: float, n: int, unit: float = 1.0) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), times `unit`; wider than nothing at 0 and 1 as well.

    Args:
        share: of n independent yes/no outcomes, from 0 to 1. Where each outcome is a mean (over seeds of a control) the
            interval is too wide, never too narrow.
        n: number of examples.
        unit: what a share of 1 is shown as, 100 for per cent.

    Example:
        >>> from twinlens.attribution.evaluation.statistics import wilson
        >>> [round(end, 3) for end in wilson(1.0, 10)], [round(end, 1) for end in wilson(0.5, 40, unit=100)]
        ([0.722, 1.0], [35.2, 64.8])
    """
    square = NORMAL_975**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = NORMAL_975 / (1 + square / n) * sqrt(max(share * (1 - share), 0.0) / n + square / (4 * n * n))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return unit * (low if share > 0 else 0.0), unit * (high if share < 1 else 1.0)


def student_975(degrees: int) -> float:
    """Standard errors on either side of a mean that hold 95 % (Student's t), for errors estimated from few values.

    Args:
        degrees: of freedom, the number of values less one.

    Example:
        >>> from twinlens.attribution.evaluation.statistics import student_975
        >>> student_975(2), round(student_975(10_000), 2)  # three seeds; very many
        (4.303, 1.96)
    """
    return _T_975[degrees - 1] if degrees <= len(_T_975) else NORMAL_975 + 2.43 / degrees


def area(shares: Tensor, counts: Sequence[int]) -> Tensor:
    """Area under each example's curve over log r by the trapezoidal rule, divided by the range of log r, [examples].

    Args:
        shares: [counts, examples].
        counts: r of each row, two different ones at least, in any order.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.statistics import area
        >>> area(torch.tensor([[0.0], [1.0]]), [1, 100])  # from nothing to everything: half of the range
        tensor([0.5000])
    """
    order = sorted(range(len(counts)), key=lambda i: counts[i])
    width = log(counts[order[-1]]) - log(counts[order[0]])
    total = torch.zeros_like(shares[0])
    for left, right in pairwise(order):
        total += (log(counts[right]) - log(counts[left])) / width * (shares[left] + shares[right]) / 2
    return total
