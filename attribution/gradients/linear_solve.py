"""Linear systems solved with a Cholesky factor."""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError


def factorised(matrix: Tensor, damping: float, setting: str = "the method's damping") -> Tensor:
    """L of a positive semi-definite matrix with something on its diagonal, LLᵀ, lower triangular, [n, n].

    Args:
        matrix: with the damping on its diagonal already, [n, n].
        damping: what was added, absolute, for the message.
        setting: that raises it.

    Raises:
        UserError: so little was added that rounding makes the matrix singular.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.linear_solve import factorised
        >>> factorised(torch.tensor([[4.0, 0.0], [0.0, 9.0]]), damping=0.1)
        tensor([[2., 0.],
                [0., 3.]])
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise UserError(
            f"a damping of {damping:.3g} (absolute) is lost in rounding beside the curvature's {len(matrix)} rows, "
            f"whose largest entry is {float(matrix.diagonal().max()):.3g}; expected one that keeps it invertible: "
            f"raise {setting}."
        )
    return factor


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
