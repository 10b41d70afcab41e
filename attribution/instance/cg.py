"""Influence by conjugate gradients (Hestenes and Stiefel 1952), for heads whose curvature fits no memory."""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.factors import dense
from twinlens.attribution.instance.head_gradients import DifferentiableHead
from twinlens.attribution.instance.products import CurvatureProducts, product_bytes
from twinlens.attribution.instance.solve import (
    DenseScorer,
    SolverPlan,
    dense_block_bytes,
    largest_ratio,
    loss_factors_at,
    residual_sample,
)

VECTORS = 8
"""Vectors of length P per test: gradient, solution, residual, direction, their products, and the sums in the making."""


def iterative_block_bytes(head: DifferentiableHead) -> tuple[int, int]:
    """Per train row: its dense gradient and the factors. Per test: beside these the iteration's vectors."""
    per_row = dense_block_bytes(head)
    return per_row, per_row + VECTORS * head.n_parameters * 8


def iterative_plan(head: DifferentiableHead) -> SolverPlan:
    """The least memory that serves: one test and one train example at a time. Its time depends on the data."""
    return SolverPlan(float("inf"), 2 * max(iterative_block_bytes(head)[1], product_bytes(head, 1)))


class ConjugateGradientScorer(DenseScorer):
    """Solves for each gradient on its own until its relative residual is below the tolerance.

    Args:
        products: the curvature.
        damping: λ.
        tolerance: relative residual ‖(H + λI)x − g‖/‖g‖ at which a solution is accepted.
        max_steps: curvature products per solution at most.
        description: for `describe`; residual and steps on a sample of train gradients are added.
        memory_budget: bytes of working memory.

    Raises:
        UserError: if H + λI is met with a direction of negative curvature, or the steps do not suffice, with the
            number.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> scorer = Influence(solver="cg").prepare(train, BUDGET)
        >>> type(scorer).__name__, scorer.describe()["residual"] < 1e-6
        ('ConjugateGradientScorer', True)
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).round(decimals=1)  # as `direct` and `dual`
        tensor([[ 0.4000, -1.1000, -0.1000,  0.1000],
                [-0.1000, -1.1000,  0.4000,  0.1000]], dtype=torch.float64)
    """

    def __init__(
        self,
        products: CurvatureProducts,
        damping: float,
        tolerance: float,
        max_steps: int,
        description: dict[str, object],
        memory_budget: int,
    ) -> None:
        super().__init__(products.head, products.train, description, memory_budget)
        self.bytes_per_row, self.bytes_per_query = iterative_block_bytes(products.head)
        self.bytes_held = 0
        self.block_budget = memory_budget // 2  # the products take the other half
        self.products = products
        self.damping = damping
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.steps = 0
        gradients = dense(loss_factors_at(self.head, self.train, residual_sample(self.n_train)))
        solutions = self.solve(gradients)
        errors = products.apply(solutions) + damping * solutions - gradients
        self.description["residual"] = largest_ratio(errors.norm(dim=1), gradients.norm(dim=1))
        self.description["steps"] = self.steps

    def solve(self, gradients: Tensor) -> Tensor:
        """Conjugate gradients on all rows, [gradients, P] → [gradients, P]; a row that has converged is left alone."""
        solution = torch.zeros_like(gradients)
        residual, direction = gradients.clone(), gradients.clone()
        squared = residual.square().sum(1)
        goal = self.tolerance**2 * squared
        for step in range(self.max_steps + 1):
            active = (squared > goal).nonzero().flatten()
            if not len(active):
                self.steps = max(self.steps, step)
                return solution
            if step == self.max_steps:
                break
            d = direction[active]
            product = self.products.apply(d).add_(d, alpha=self.damping)
            curvature = (d * product).sum(1)
            self._require_positive(curvature, d)
            length = squared[active] / curvature
            solution[active] += length[:, None] * d
            residual[active] -= length[:, None] * product
            after = residual[active].square().sum(1)
            direction[active] = residual[active] + (after / squared[active])[:, None] * d
            squared[active] = after
        reached = float((squared / goal).max().sqrt()) * self.tolerance
        raise UserError(
            f"solver=cg reaches a relative residual of {reached:.3g} in {self.max_steps} steps; expected at most "
            f"cg_tolerance={self.tolerance:g}: raise cg_max_steps, cg_tolerance or the method's damping."
        )

    def _require_positive(self, curvature: Tensor, direction: Tensor) -> None:
        rayleigh = curvature / direction.square().sum(1)
        if float(rayleigh.min()) <= 0:
            raise UserError(
                f"The exact Hessian of the train loss has a direction of curvature "
                f"{float(rayleigh.min()) - self.damping:.4g} and λ is {self.damping:.4g}; expected a positive sum in "
                "every direction: raise the method's damping or use curvature=ggn."
            )
