"""The naive loops that ground truth is compared with: ranks, correlations and refits over plain Python lists."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value, 1 the lowest; equal values share the mean of their places."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation, 0 where one side is constant."""
    a, b = ([v - sum(side) / len(side) for v in side] for side in (x, y))
    norm = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    return sum(v * w for v, w in zip(a, b, strict=True)) / norm if norm else 0.0


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation of the ranks."""
    return pearson(ranks(x), ranks(y))


def lds(scores: Tensor, subsets: Sequence[Sequence[int]], measured: Tensor) -> float:
    """Mean over tests of Spearman's correlation over subsets between summed scores and what was measured.

    Args:
        scores: [tests, n_train].
        subsets: train rows of each.
        measured: [tests, subsets].
    """
    found = []
    for own, truth in zip(scores.tolist(), measured.tolist(), strict=True):
        found.append(spearman([sum(own[row] for row in rows) for rows in subsets], truth))
    return sum(found) / len(found)


def area_under_roc(values: Sequence[float], wanted: Sequence[bool]) -> float:
    """Share of pairs of a wanted and an unwanted row in which the wanted one has the higher value; ties count half."""
    pairs = [
        (value > other) + 0.5 * (value == other)
        for value, yes in zip(values, wanted, strict=True)
        if yes
        for other, no in zip(values, wanted, strict=True)
        if not no
    ]
    return sum(pairs) / len(pairs)


def fitted_head(features: Tensor, labels: Tensor, penalty: float, centre: Tensor, bias: bool, n: int) -> Tensor:
    """Weights [classes, inputs] with the lowest Σ loss / n + penalty/2 |W − centre|², by autograd and LBFGS.

    Args:
        features: [rows, hidden], float64.
        n: by which the sum is divided.
    """
    inputs = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], 1) if bias else features
    weights = centre.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(inputs @ weights.T, labels, reduction="sum") / n
        value = value + penalty / 2 * (weights - centre).square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach()
