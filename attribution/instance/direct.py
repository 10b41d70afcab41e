"""Influence by the Cholesky factor of the P × P curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.linear_solve import solve_factored
from twinlens.attribution.instance.factors import LayerFactors, dense
from twinlens.attribution.instance.head_gradients import DifferentiableHead
from twinlens.attribution.instance.hessian import smallest_eigenvalue
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.solve import (
    DenseScorer,
    SolverPlan,
    dense_block_bytes,
    largest_ratio,
    loss_factors_at,
    residual_sample,
)


def direct_plan(head: DifferentiableHead, n_train: int) -> SolverPlan:
    """Matrix and its factor, P² numbers each; n·(classes − 1) rank-one updates, Cholesky, n triangular solves."""
    p = head.n_parameters
    rows = n_train * (head.n_classes - 1)
    return SolverPlan(2.0 * rows * p * p + p**3 / 3 + n_train * p * p, 2 * p * p * 8)


def direct_block_bytes(head: DifferentiableHead) -> tuple[int, int]:
    """Per train row: its dense gradient and the factors. Per test: beside these two triangular solves."""
    per_row = dense_block_bytes(head)
    return per_row, per_row + 2 * head.n_parameters * 8


class DirectScorer(DenseScorer):
    """Solves with the Cholesky factor of H + λI.

    Args:
        head: the head.
        train: the train split.
        matrix: H, [P, P]; overwritten.
        damping: λ.
        description: for `describe`; the residual is added.
        memory_budget: bytes of working memory.

    Raises:
        UserError: if H + λI is not positive definite, with the smallest eigenvalue of H.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> scorer = Influence(solver="direct").prepare(train, BUDGET)
        >>> type(scorer).__name__
        'DirectScorer'
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).round(decimals=1)  # [tests, train]
        tensor([[ 0.4000, -1.1000, -0.1000,  0.1000],
                [-0.1000, -1.1000,  0.4000,  0.1000]], dtype=torch.float64)
    """

    def __init__(
        self,
        head: DifferentiableHead,
        train: HeadInputs,
        matrix: Tensor,
        damping: float,
        description: dict[str, object],
        memory_budget: int,
    ) -> None:
        super().__init__(head, train, description, memory_budget)
        self.bytes_per_row, self.bytes_per_query = direct_block_bytes(head)
        self.bytes_held = head.n_parameters**2 * 8
        mean_eigenvalue = float(matrix.trace()) / len(matrix)
        matrix.diagonal().add_(damping)
        self.cholesky, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            raise UserError(indefinite_message(smallest_eigenvalue(matrix) - damping, damping, mean_eigenvalue))
        gradients = dense(loss_factors_at(head, train, residual_sample(self.n_train)))
        errors = self.solve(gradients) @ matrix - gradients
        self.description["residual"] = largest_ratio(errors.norm(dim=1), gradients.norm(dim=1))
        if self.description["curvature"] == "hessian":
            self.description["smallest_eigenvalue"] = smallest_eigenvalue(matrix) - damping

    def solve(self, gradients: Tensor) -> Tensor:
        """Two triangular solves, [gradients, P] → [gradients, P]."""
        return solve_factored(self.cholesky, gradients.T).T

    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        return torch.linalg.solve_triangular(self.cholesky, dense(factors).T, upper=False).square().sum(0)


def indefinite_message(smallest: float, damping: float, mean_eigenvalue: float) -> str:
    """The refusal of an exact Hessian that damping leaves indefinite; `mean_eigenvalue` is above 0."""
    # 1 % above the limit, so that following the advice does not end in a singular matrix.
    enough = 1.01 * -smallest / mean_eigenvalue
    return (
        f"The exact Hessian of the train loss has smallest eigenvalue {smallest:.4g} and λ is {damping:.4g}; expected "
        f"smallest + λ > 0: raise the method's damping to at least {enough:.3g} or use curvature=ggn."
    )
