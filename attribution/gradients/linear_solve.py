"""Linear systems solved with a Cholesky factor."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_factored(cholesky: Tensor, right: Tensor) -> Tensor:
    """(LLᵀ)⁻¹ right, in two triangular solves: `torch.cholesky_solve` copies the whole factor at each call."""
    half = torch.linalg.solve_triangular(cholesky, right, upper=False)
    return torch.linalg.solve_triangular(cholesky.mT, half, upper=True)
