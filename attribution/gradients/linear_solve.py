"""Linear systems solved with a Cholesky factor."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_factored(cholesky: Tensor, right: Tensor) -> Tensor:
    """(LLᵀ)⁻¹ right, in two triangular solves: `torch.cholesky_solve` copies the whole factor at each call.

    Args:
        cholesky: L, lower triangular, [n, n].
        right: [n, columns].

    Returns:
        [n, columns].

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.linear_solve import solve_factored
        >>> matrix = torch.tensor([[4.0, 2.0], [2.0, 3.0]])
        >>> solve_factored(torch.linalg.cholesky(matrix), matrix @ torch.tensor([[1.0], [2.0]])).round(decimals=4)
        tensor([[1.],
                [2.]])
    """
    half = torch.linalg.solve_triangular(cholesky, right, upper=False)
    return torch.linalg.solve_triangular(cholesky.mT, half, upper=True)
