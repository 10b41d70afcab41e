"""Means with standard errors, and areas under curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log

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
