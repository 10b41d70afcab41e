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
class Known:
    """What is known of examples: numbers that predict an outcome, numbers that its spread grows with, and the outcome.

    Attributes:
        predictors: [examples, predictors], float64; a constant is added where a line is fitted.
        spread: not negative, [examples, columns], float64; a constant and the size of what is predicted are added.
        outcome: [examples], float64.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.conformal import Known
        >>> known = Known(torch.rand(4, 1).double(), torch.empty(4, 0).double(), torch.rand(4).double())
        >>> len(known.at(torch.tensor([0, 2])).outcome)
        2
    """

    predictors: Tensor
    spread: Tensor
    outcome: Tensor

    def at(self, rows: Tensor) -> Known:
        """Those of some rows."""
        return Known(self.predictors[rows], self.spread[rows], self.outcome[rows])


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


def calibrated(known: Known, held_out: Tensor, level: float, highest: Tensor | None = None) -> Intervals:
    """Intervals of every example, calibrated on the examples of other groups alone.

    Of the others a line from the predictors to the outcome is fitted by least squares, weighted by a spread that is
    itself fitted to the residuals (a sum of the columns of `spread` with coefficients not below 0). Each of them is
    also predicted by a fit on nine tenths of the others. Those residuals, as multiples of the spread, give the width:
    their ⌈level · (n + 1)⌉-th smallest (conformal prediction over folds; Vovk 2015, Barber et al. 2021). What the
    predictors are worth shows in the width; that the intervals hold does not depend on it.

    Args:
        known: of all examples.
        held_out: group of each example, [examples], int64; each is predicted from the other groups.
        level: share of outcomes that should lie in their intervals.
        highest: what an outcome cannot exceed, [examples]; None: nothing.

    Returns:
        infinitely wide intervals where too few examples calibrate for the level.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.conformal import Known, calibrated
        >>> draws = torch.Generator().manual_seed(0)
        >>> score = torch.rand(400, 1, dtype=torch.float64, generator=draws)
        >>> outcome = 2 * score[:, 0] + 0.1 * torch.randn(400, dtype=torch.float64, generator=draws)
        >>> known = Known(score, torch.empty(400, 0).double(), outcome)
        >>> found = calibrated(known, torch.arange(400) % 2, level=0.9)
        >>> 0.86 < float(found.hold(outcome).double().mean()) < 0.94
        True
    """
    found = torch.empty(3, len(known.outcome), dtype=torch.float64)
    for group in held_out.unique():
        own = held_out == group
        others = known.at(~own)
        ratios = torch.empty(len(others.outcome), dtype=torch.float64)
        for part, rest in _parts(len(ratios)):
            ratios[part] = _Line.fitted(others.at(rest)).ratios(others.at(part))
        found[:, own] = _Line.fitted(others).ends(known.at(own), _times(ratios, level))
    return Intervals(*(found if highest is None else torch.minimum(found, highest)))


def recalibrated(known: Known, fitted_to: Known, level: float, highest: Tensor | None = None) -> Intervals:
    """Intervals of a few examples by a line that was fitted to many others, whose outcomes were measured otherwise.

    The width is calibrated for each by the residuals of all the rest of the few, as in `calibrated`; the line and how
    the spread grows are those of the many, so that one odd example among the few does not turn them.

    Args:
        known: of the few examples.
        fitted_to: of other examples.
        level, highest: see `calibrated`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.conformal import Known, recalibrated
        >>> many, few = torch.rand(200, 1).double(), torch.rand(30, 1).double()
        >>> nothing = torch.empty(200, 0).double()
        >>> line = Known(many, nothing, 2 * many[:, 0] + 0.1 * torch.rand(200).double())
        >>> outcome = 2 * few[:, 0] + torch.rand(30).double()  # rougher than what the line was fitted to
        >>> found = recalibrated(Known(few, nothing[:30], outcome), line, level=0.9)
        >>> float(found.hold(outcome).double().mean()) > 0.8
        True
    """
    line = _Line.fitted(fitted_to)
    ratios = line.ratios(known)
    rest = ~torch.eye(len(ratios), dtype=torch.bool)
    times = torch.tensor([_times(ratios[own], level) for own in rest], dtype=torch.float64)
    found = line.ends(known, times)
    return Intervals(*(found if highest is None else torch.minimum(found, highest)))


def _times(ratios: Tensor, level: float) -> float:
    """How many spreads wide an interval is on either side, of residuals as multiples of theirs, [examples]."""
    rank = ceil(level * (len(ratios) + 1))
    return float(ratios.sort().values[rank - 1]) if rank <= len(ratios) else torch.inf


def _parts(n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tenth of n examples, and the rest; of fewer than ten each example."""
    place = torch.arange(n) % min(PARTS, n)
    for part in range(min(PARTS, n)):
        yield torch.nonzero(place == part)[:, 0], torch.nonzero(place != part)[:, 0]


@dataclass(frozen=True)
class _Line:
    """A line through outcomes, and how far they lie from it.

    Attributes:
        slopes: of the predictors, a constant last, [predictors + 1].
        widths: of a constant, of the size of what is predicted, and of the columns of `spread`, [columns + 2].
        least: spread at least.
    """

    slopes: Tensor
    widths: Tensor
    least: float

    @staticmethod
    def fitted(known: Known) -> _Line:
        """By weighted least squares, whose weights follow from the residuals."""
        design = _with_constant(known.predictors)
        line = _Line(_least_squares(design, known.outcome), torch.zeros(known.spread.shape[1] + 2).double(), 1.0)
        for _ in range(ROUNDS):
            predicted = design @ line.slopes
            residual = (known.outcome - predicted).abs()
            least = max(NARROWEST * float(residual.mean()), torch.finfo(torch.float64).tiny)
            widths = not_negative(_columns(predicted, known.spread), residual)
            width = (_columns(predicted, known.spread) @ widths).clamp(min=least)
            weight = width.mean() / width
            line = _Line(_least_squares(design * weight[:, None], known.outcome * weight), widths, least)
        return line

    def of(self, known: Known) -> tuple[Tensor, Tensor]:
        """What is predicted, and its spread, [examples] each."""
        predicted = _with_constant(known.predictors) @ self.slopes
        return predicted, (_columns(predicted, known.spread) @ self.widths).clamp(min=self.least)

    def ratios(self, known: Known) -> Tensor:
        """Residuals as multiples of their spread, [examples]."""
        predicted, width = self.of(known)
        return (known.outcome - predicted).abs() / width

    def ends(self, known: Known, times: float | Tensor) -> Tensor:
        """What is predicted and the ends so many spreads away from it, [3, examples]."""
        predicted, width = self.of(known)
        return torch.stack([predicted, predicted - times * width, predicted + times * width])


def _with_constant(predictors: Tensor) -> Tensor:
    return torch.cat([predictors, predictors.new_ones(len(predictors), 1)], 1)


def _columns(predicted: Tensor, spread: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(predicted)[:, None], predicted.abs()[:, None], spread], 1)


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
