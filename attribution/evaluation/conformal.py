"""Predicted changes with intervals that other examples calibrate: weighted least squares, and conformal residuals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import ceil

import torch
from torch import Tensor

PARTS = 10
"""Of the calibrating examples: each is predicted by a fit on the other nine tenths, so that its residual is honest."""
ROUNDS = 3
"""Of fitting the spread of the residuals and weighing the examples by it."""
NARROWEST = 0.02
"""Least spread as a share of the mean residual: an example that happens to lie on the line must not rule the fit."""


@dataclass(frozen=True)
class Intervals:
    """What was predicted of each example, and where its outcome should lie.

    Attributes:
        predicted: [examples], float64.
        low, high: ends of the interval, [examples], float64.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.conformal import Intervals
        >>> found = Intervals(torch.tensor([0.5]), torch.tensor([0.1]), torch.tensor([0.9]))
        >>> found.hold(torch.tensor([1.0])).tolist()
        [False]
    """

    predicted: Tensor
    low: Tensor
    high: Tensor

    def hold(self, outcome: Tensor) -> Tensor:
        """Whether each outcome lies in its interval, bool [examples]."""
        return (outcome >= self.low) & (outcome <= self.high)


def calibrated(
    predictors: Tensor, outcome: Tensor, spread: Tensor, held_out: Tensor, level: float, highest: Tensor | None = None
) -> Intervals:
    """Intervals of every example, calibrated on the examples of other groups alone.

    Of the others a line from the predictors to the outcome is fitted by least squares, weighted by a spread that is
    itself fitted to the residuals (a sum of the columns of `spread` with coefficients not below 0). Each of them is
    also predicted by a fit on nine tenths of the others. Those residuals, as multiples of the spread, give the width:
    their ⌈level · (n + 1)⌉-th smallest (conformal prediction over folds; Vovk 2015, Barber et al. 2021). What the
    predictors are worth shows in the width; that the intervals hold does not depend on it.

    Args:
        predictors: [examples, predictors], float64; a constant is added.
        outcome: [examples], float64.
        spread: not negative, [examples, columns], float64; a constant and the size of what is predicted are added.
        held_out: group of each example, [examples], int64; each is predicted from the other groups.
        level: share of outcomes that should lie in their intervals.
        highest: what an outcome cannot exceed, [examples]; None: nothing.

    Returns:
        infinitely wide intervals where too few examples calibrate for the level.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.conformal import calibrated
        >>> draws = torch.Generator().manual_seed(0)
        >>> score = torch.rand(400, 1, dtype=torch.float64, generator=draws)
        >>> outcome = 2 * score[:, 0] + 0.1 * torch.randn(400, dtype=torch.float64, generator=draws)
        >>> found = calibrated(score, outcome, torch.empty(400, 0).double(), torch.arange(400) % 2, level=0.9)
        >>> 0.86 < float(found.hold(outcome).double().mean()) < 0.94
        True
    """
    design = torch.cat([predictors, torch.ones_like(outcome)[:, None]], 1)
    found = torch.empty(3, len(outcome), dtype=torch.float64)
    for group in held_out.unique():
        own = held_out == group
        others = torch.nonzero(~own)[:, 0]
        residual = torch.empty(len(others), dtype=torch.float64)
        for part, rest in _parts(len(others)):
            line, width = _fitted(design, outcome, spread, others[rest])
            residual[part] = ((outcome - line).abs() / width)[others[part]]
        rank = ceil(level * (len(others) + 1))
        times = float(residual.sort().values[rank - 1]) if rank <= len(others) else torch.inf
        line, width = _fitted(design, outcome, spread, others)
        found[:, own] = torch.stack([line, line - times * width, line + times * width])[:, own]
    if highest is not None:
        found = torch.minimum(found, highest)
    return Intervals(*found)


def _parts(n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tenth of n examples, and the rest; of fewer than ten each example."""
    place = torch.arange(n) % min(PARTS, n)
    for part in range(min(PARTS, n)):
        yield torch.nonzero(place == part)[:, 0], torch.nonzero(place != part)[:, 0]


def _fitted(design: Tensor, outcome: Tensor, spread: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions of all examples and their spread, [examples] each, by a fit on some."""
    line = design @ _least_squares(design[rows], outcome[rows])
    width = torch.ones_like(line)
    for _ in range(ROUNDS):
        residual = (outcome - line).abs()
        columns = torch.cat([torch.ones_like(line)[:, None], line.abs()[:, None], spread], 1)
        least = max(NARROWEST * float(residual[rows].mean()), torch.finfo(torch.float64).tiny)
        width = (columns @ not_negative(columns[rows], residual[rows])).clamp(min=least)
        weight = width[rows].mean() / width[rows]
        line = design @ _least_squares(design[rows] * weight[:, None], outcome[rows] * weight)
    return line, width


def _least_squares(design: Tensor, outcome: Tensor) -> Tensor:
    return torch.linalg.lstsq(design, outcome[:, None], driver="gelsd").solution[:, 0]  # columns may depend on others


def not_negative(design: Tensor, outcome: Tensor) -> Tensor:
    """Least squares with coefficients not below 0, [columns]: the best of all choices of columns, which are few.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.conformal import not_negative
        >>> design = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> not_negative(design, torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)).tolist()  # it would fall
        [2.0, 0.0]
    """
    n_columns = design.shape[1]
    free = _least_squares(design, outcome)
    if bool((free >= 0).all()):
        return free
    best, least = torch.zeros(n_columns, dtype=torch.float64), float(outcome.square().sum())
    for size in range(1, n_columns):
        for columns in combinations(range(n_columns), size):
            chosen = list(columns)
            found = torch.zeros(n_columns, dtype=torch.float64)
            found[chosen] = _least_squares(design[:, chosen], outcome)
            error = float((design @ found - outcome).square().sum())
            if bool((found >= 0).all()) and error < least:
                best, least = found, error
    return best
