"""Influence by the Gram matrix of the GGN's rows (push-through identity): with nH = GᵀG and K = GGᵀ,

(H + λI)⁻¹ = 1/λ [I − Gᵀ(K + nλI)⁻¹G].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.gradients.linear_solve import factorised, solve_factored
from twinlens.attribution.instance.curvature import ggn_gram, ggn_root
from twinlens.attribution.instance.factors import LayerFactors, gram, squared_norms
from twinlens.attribution.instance.head_gradients import DifferentiableHead, check_inputs, loss_factors
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.solve import (
    SolvedScorer,
    SolverPlan,
    largest_ratio,
    loss_factors_at,
    residual_sample,
)


def dual_plan(head: DifferentiableHead, n_train: int) -> SolverPlan:
    """Gram matrix and its factor, R² numbers each, and the factors of the rows."""
    rank = head.n_classes - 1
    rows = n_train * rank
    inputs = sum(layer.in_features for layer in head.layers)
    outputs = sum(layer.out_features for layer in head.layers)
    products = float(n_train) ** 2 * head.pair_operations(rank)
    factors = 8 * n_train * head.sequences * (inputs + rank * outputs)
    return SolverPlan(products + rows**3 / 3 + n_train * float(rows) ** 2, 2 * rows * rows * 8 + 2 * factors)


def dual_block_bytes(head: DifferentiableHead, n_train: int) -> tuple[int, int]:
    """Per train row: the Gram products with all rows, their second factor and sum, and the factors. Per test the same,
    with two triangular solves."""
    products = 2 + (len(head.layers) > 1 or head.sequences > 1)
    per_row = (products * n_train * (head.n_classes - 1) + head.factor_numbers) * 8
    return per_row, per_row


@dataclass(frozen=True)
class DualQuery:
    """A block of tests, solved for.

    Attributes:
        factors: their gradients ∇L_t.
        coefficients: (K + nλI)⁻¹G∇L_t, [R, tests], R the rows of the GGN.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> query = Influence(solver="dual").prepare(train, BUDGET).query(test, torch.arange(2))
        >>> query.coefficients.shape  # one row per train example, as there are two classes
        torch.Size([4, 2])
    """

    factors: list[LayerFactors]
    coefficients: Tensor


class DualScorer(SolvedScorer):
    """Solves through the Gram matrix of the GGN's rows.

    Args:
        head: the head.
        train: the train split.
        damping: λ.
        description: for `describe`; the residual is added.
        memory_budget: bytes of working memory.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> scorer = Influence(solver="dual").prepare(train, BUDGET)
        >>> type(scorer).__name__
        'DualScorer'
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).round(decimals=1)  # as `direct`
        tensor([[ 0.4000, -1.1000, -0.1000,  0.1000],
                [-0.1000, -1.1000,  0.4000,  0.1000]], dtype=torch.float64)
    """

    def __init__(
        self,
        head: DifferentiableHead,
        train: HeadInputs,
        damping: float,
        description: dict[str, object],
        memory_budget: int,
    ) -> None:
        super().__init__(head, train, description, memory_budget)
        self.damping = damping
        self.root = ggn_root(head, train.features)
        matrix = ggn_gram(self.root, memory_budget)
        self.bytes_per_row, self.bytes_per_query = dual_block_bytes(head, len(train))
        self.bytes_held = len(matrix) ** 2 * 8 + sum((f.inputs.numel() + f.deltas.numel()) * 8 for f in self.root)
        matrix.diagonal().add_(self.n_train * damping)
        self.cholesky = factorised(matrix, damping)
        matrix.diagonal().sub_(self.n_train * damping)
        self.description["residual"] = self._residual(matrix)

    def _residual(self, matrix: Tensor) -> float:
        """‖(H + λI)x − g‖/‖g‖ without leaving the row space: the error is Gᵀu, u = Gx/n − w, of length √(uᵀKu)."""
        factors = loss_factors_at(self.head, self.train, residual_sample(self.n_train))
        products = gram(self.root, factors)
        coefficients = solve_factored(self.cholesky, products)
        u = (products - matrix @ coefficients) / (self.n_train * self.damping) - coefficients
        return largest_ratio((u * (matrix @ u)).sum(0).clamp_min(0).sqrt(), squared_norms(factors).sqrt())

    def query(self, test: HeadInputs, index: Tensor) -> DualQuery:
        """Gradients and row coefficients of the tests."""
        check_inputs(test, self.head, index, "test")
        factors = loss_factors(self.head, test)
        return DualQuery(factors, solve_factored(self.cholesky, gram(self.root, factors)))

    def scores(self, query: DualQuery, start: int, stop: int) -> Tensor:
        """[tests, stop − start]."""
        factors = self._train_factors(start, stop)
        plain = gram(query.factors, factors)
        return plain.addmm_(query.coefficients.T, gram(self.root, factors), alpha=-1).div_(self.damping)

    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        explained = torch.linalg.solve_triangular(self.cholesky, gram(self.root, factors), upper=False)
        return (squared_norms(factors) - explained.square().sum(0)) / self.damping
