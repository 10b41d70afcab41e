"""Linear regression with what says how far it can be trusted: errors, standardised coefficients, variance inflation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.evaluation.statistics import student_975


@dataclass(frozen=True)
class Regression:
    """Ordinary least squares with an intercept.

    Attributes:
        coefficients: of the columns as they are, [columns].
        errors: their standard errors, [columns].
        standardised: change of y, in its standard deviations, for one standard deviation of a column, [columns].
        inflation: variance inflation factor, 1 / (1 − R²) of a column on the others: by how much the square of its
            error is larger than if the columns were uncorrelated, [columns].
        degrees: of freedom, points less columns less one.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.regression import regression
        >>> x = torch.tensor([[0.0, 1.0], [1.0, -1.0], [2.0, -1.0], [3.0, 1.0]], dtype=torch.float64)
        >>> found = regression(x, 2 * x[:, 0])
        >>> found.coefficients.round(decimals=6).tolist(), found.inflation.round(decimals=6).tolist()
        ([2.0, 0.0], [1.0, 1.0])
    """

    coefficients: Tensor
    errors: Tensor
    standardised: Tensor
    inflation: Tensor
    degrees: int

    def interval(self, column: int) -> tuple[float, float]:
        """95 % interval of a coefficient, Student's."""
        value, half = float(self.coefficients[column]), student_975(self.degrees) * float(self.errors[column])
        return value - half, value + half


def regression(x: Tensor, y: Tensor) -> Regression | None:
    """Ordinary least squares with intercept, None where the columns, centred, are linearly dependent.

    Solved on centred columns scaled to unit length, since columns may differ by orders of magnitude; the result is that
    of the columns as they are.

    Args:
        x: [points, columns], float64, with points > columns + 1.
        y: [points], float64.
    """
    centred, target = x - x.mean(0), y - y.mean()
    scale = centred.norm(dim=0)
    if bool((scale == 0).any()):
        return None
    q, r = torch.linalg.qr(centred / scale)
    if float(r.diagonal().abs().min()) < 1e-10:
        return None
    coefficients = torch.linalg.solve_triangular(r, (q.T @ target)[:, None], upper=True)[:, 0]
    residual = target - centred / scale @ coefficients
    degrees = len(y) - x.shape[1] - 1
    variance = residual.square().sum() / degrees
    inverse = torch.linalg.solve_triangular(r, torch.eye(x.shape[1], dtype=x.dtype), upper=True)
    inflation = inverse.square().sum(1)  # diagonal of the inverse of the correlations
    spread = target.norm()
    standardised = coefficients / spread if float(spread) > 0 else torch.zeros_like(coefficients)
    return Regression(coefficients / scale, (variance * inflation).sqrt() / scale, standardised, inflation, degrees)
