"""Means with standard errors."""

from __future__ import annotations

from collections.abc import Sequence

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
