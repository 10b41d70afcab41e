"""Conjugate gradients with a preconditioner (Hestenes and Stiefel 1952), for several right-hand sides side by side.

The matrix is known by its products alone, each of which may be a pass over a train split, and vectors come in parts,
one for each layer of a model. So every step takes one product for all right-hand sides, and a solution is accepted by
the residual of a product of its own, not by the one that the recurrence has carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError

COPIES = 6
"""Vectors that stand side by side for each right-hand side: itself, solution, residual, direction, the direction once
more where only some of them go on, and its product."""

Parts = list[Tensor]
"""Vectors side by side, one tensor [vectors, width] for each part."""


@dataclass(frozen=True)
class Solutions:
    """What conjugate gradients have found.

    Attributes:
        parts: the solutions, each [vectors, width].
        residual: ‖Ax − b‖/‖b‖ of every solution, by a product of its own, [vectors], float64.
        steps: products that were taken.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.preconditioned import solved
        >>> matrix = torch.tensor([[4.0, 2.0], [2.0, 3.0]])
        >>> found = solved(
        ...     [torch.tensor([[1.0, 0.0]])],
        ...     product=lambda parts: [parts[0] @ matrix],
        ...     precondition=lambda part, residual: residual / matrix.diagonal(),
        ...     tolerance=1e-5, max_steps=10,
        ... )
        >>> found.parts[0], found.steps  # the inverse's first row, by two steps and the product that checks them
        (tensor([[ 0.3750, -0.2500]]), 3)
    """

    parts: Parts
    residual: Tensor
    steps: int


def solved(
    right: Parts,
    product: Callable[[Parts], Parts],
    precondition: Callable[[int, Tensor], Tensor],
    tolerance: float,
    max_steps: int,
) -> Solutions:
    """Solve A x = b for every b until ‖Ax − b‖ ≤ tolerance · ‖b‖.

    Args:
        right: every b.
        product: A times some vectors, in new tensors.
        precondition: (number of the part, residuals in it [vectors, width]) → M⁻¹ of them, in a new tensor, M
            symmetric, positive and made of a block for each part.
        tolerance: relative residual at which a solution is accepted.
        max_steps: products at most.

    Raises:
        UserError: the steps do not suffice, or numbers overflow, with the residual that was reached.
    """
    lengths = _inner(right, right).sqrt()
    goal = tolerance * lengths
    found = [torch.zeros_like(part) for part in right]
    residual = [part.clone() for part in right]
    size, steps = lengths, 0
    while True:
        direction = [precondition(number, part) for number, part in enumerate(residual)]
        slope = _inner(residual, direction)
        while bool((size > goal).any()) and steps < max_steps - 1:  # one is left to check
            some = None if bool((size > goal).all()) else (size > goal).nonzero()[:, 0]
            along = direction if some is None else [part[some] for part in direction]
            moved = product(along)
            steps += 1
            at = slice(None) if some is None else some
            length = slope[at] / _inner(along, moved)
            for x, r, d, p in zip(found, residual, along, moved, strict=True):
                x[at] += length[:, None].to(x) * d
                r[at] -= length[:, None].to(r) * p
            del along, moved
            size, before = _inner(residual, residual).sqrt(), slope
            slope = _preconditioned_squares(residual, precondition)
            turn = torch.where(before > 0, slope / before, 0.0)
            for number, (d, r) in enumerate(zip(direction, residual, strict=True)):
                d.mul_(turn[:, None].to(d)).add_(precondition(number, r))
        for r, b, p in zip(residual, right, product(found), strict=True):
            torch.sub(b, p, out=r)
        steps += 1
        size = _inner(residual, residual).sqrt()
        reached = torch.where(lengths > 0, size / lengths, size)
        if bool((reached <= tolerance).all()):
            return Solutions(found, reached, steps)
        if steps >= max_steps or not bool(reached.isfinite().all()):
            raise UserError(
                f"solver=cg reaches a relative residual of {float(reached.max()):.3g} in {steps} passes over the train "
                f"split; expected at most cg_tolerance={tolerance:g}: raise cg_max_steps (now {max_steps}), "
                "cg_tolerance or the method's damping."
            )


def _inner(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner products of vectors with their partners, [vectors], float64."""
    return torch.stack([torch.linalg.vecdot(a, b).double() for a, b in zip(left, right, strict=True)]).sum(0)


def _preconditioned_squares(residual: Sequence[Tensor], precondition: Callable[[int, Tensor], Tensor]) -> Tensor:
    """⟨r, M⁻¹ r⟩, part by part, [vectors], float64; M⁻¹ r of one part alone stands in memory."""
    squares = [torch.linalg.vecdot(part, precondition(number, part)).double() for number, part in enumerate(residual)]
    return torch.stack(squares).sum(0)
