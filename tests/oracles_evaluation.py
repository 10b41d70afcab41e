"""The naive loops that evaluations are compared with: sets, counts and sums over plain Python lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def ranking(values: Sequence[float], best_is_high: bool = True) -> list[int]:
    """Rows by value, the lower row first where values are equal."""
    return sorted(range(len(values)), key=lambda row: (-values[row] if best_is_high else values[row], row))


def overlap_of_sets(first: Sequence[int], second: Sequence[int]) -> float:
    """Per cent of the first that are in the second too."""
    return 100 * sum(entry in set(second) for entry in first) / len(first)


def union_shares(
    first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]
) -> tuple[float, float, float] | None:
    """Per cent of the union that is in the first only, the second only, both; addresses below 0 stand for nothing."""
    a, b = ({entry for entry in entries if entry[0] >= 0} for entries in (first, second))
    union = a | b
    if not union:
        return None
    return tuple(100 * len(part) / len(union) for part in (a - b, b - a, a & b))  # type: ignore[return-value]


def mean_pairwise_cosine(vectors: Tensor) -> float:
    """Mean over all pairs of different vectors."""
    rows = vectors.double()
    found = [
        float(rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm()))
        for i in range(len(rows))
        for j in range(len(rows))
        if i < j
    ]
    return sum(found) / len(found)


def unique_tokens(rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> int:
    """Different tokens of some rows."""
    seen = set()
    for row in rows:
        for token in tokens[row]:
            seen.add(token)
    return len(seen)


def least_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients and standard errors by the normal equations with a column of ones, the intercept left out."""
    design = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1)
    inverse = torch.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    residual = y - design @ coefficients
    variance = residual @ residual / (len(y) - design.shape[1])
    return coefficients[1:], (variance * inverse.diagonal()).sqrt()[1:]


def standardised_and_inflation(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    """Coefficients of z-scored columns on z-scored y, and 1 / (1 − R²) of every column on the others, by lstsq."""

    def scored(values: np.ndarray) -> np.ndarray:
        return (values - values.mean(0)) / values.std(0)

    standardised = np.linalg.lstsq(scored(x), scored(y), rcond=None)[0]
    inflation = []
    for column in range(x.shape[1]):
        others = np.column_stack([np.ones(len(x)), scored(np.delete(x, column, 1))])
        own = scored(x[:, column])
        residual = own - others @ np.linalg.lstsq(others, own, rcond=None)[0]
        inflation.append(1 / (residual @ residual / (own @ own)))
    return standardised.tolist(), inflation


def jaccard(premise: str, hypothesis: str) -> float:
    """Common over all different words between white space."""
    words = {*premise.split(), *hypothesis.split()}
    common = [word for word in words if word in premise.split() and word in hypothesis.split()]
    return len(common) / len(words) if words else 0.0


def retrained_accuracy(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Share of right predictions among the labelled examples."""
    right = [prediction == label for prediction, label in zip(predictions, labels, strict=True) if label >= 0]
    return sum(right) / len(right)


def preserved(predictions: Sequence[int], original: Sequence[int]) -> float:
    """Share of predictions that stayed."""
    return sum(a == b for a, b in zip(predictions, original, strict=True)) / len(original)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error with n − 1 in the variance."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
