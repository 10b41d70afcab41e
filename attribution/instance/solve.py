"""Exact solvers for (H + λI)⁻¹ applied to head gradients, as scorers over the train split.

`DirectScorer` factorises the P × P matrix; `DualScorer` the R × R Gram matrix of the GGN's rows (push-through
identity): with nH = GᵀG and K = GGᵀ,

    (H + λI)⁻¹ = 1/λ [I − Gᵀ(K + nλI)⁻¹G].

All in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.base import HeadInputs, UserError
from attribution.instance.curvature import blocks, ggn_gram, ggn_root, smallest_eigenvalue
from attribution.instance.head_gradients import (
    DifferentiableHead,
    LayerFactors,
    check_inputs,
    dense,
    gram,
    loss_factors,
    squared_norms,
)

RESIDUAL_SAMPLE = 8
"""Train gradients, evenly spaced, on which a solver reports its residual."""


@dataclass(frozen=True)
class SolverPlan:
    """Cost of a solver: floating-point operations of preparation and self-influence, and bytes held at the peak."""

    operations: float
    memory: int


def direct_plan(head: DifferentiableHead, n_train: int) -> SolverPlan:
    """Matrix and its factor, P² numbers each; n·(classes − 1) rank-one updates, Cholesky, n triangular solves."""
    p = head.n_parameters
    rows = n_train * (head.n_classes - 1)
    return SolverPlan(2.0 * rows * p * p + p**3 / 3 + n_train * p * p, 2 * p * p * 8)


def dual_plan(head: DifferentiableHead, n_train: int) -> SolverPlan:
    """Gram matrix and its factor, R² numbers each, and the factors of the rows."""
    rank = head.n_classes - 1
    rows = n_train * rank
    inputs = sum(layer.in_features for layer in head.layers)
    outputs = sum(layer.out_features for layer in head.layers)
    products = 2.0 * rows * rows * (inputs / rank**2 + outputs)
    factors = 8 * n_train * (inputs + rank * outputs)
    return SolverPlan(products + rows**3 / 3 + n_train * float(rows) ** 2, 2 * rows * rows * 8 + 2 * factors)


def direct_block_bytes(head: DifferentiableHead) -> tuple[int, int]:
    """Per train row: its dense gradient and the factors. Per test: beside these two triangular solves."""
    per_row = (head.dense_copies * head.n_parameters + head.factor_numbers) * 8
    return per_row, per_row + 2 * head.n_parameters * 8


def dual_block_bytes(head: DifferentiableHead, n_train: int) -> tuple[int, int]:
    """Per train row: the Gram products with all rows, their second factor and sum, and the factors. Per test the same,
    with two triangular solves."""
    products = 2 + (len(head.layers) > 1)
    per_row = (products * n_train * (head.n_classes - 1) + head.factor_numbers) * 8
    return per_row, per_row


def _sample(n: int) -> Tensor:
    return torch.linspace(0, n - 1, min(RESIDUAL_SAMPLE, n)).round().long()


def _loss_factors_at(head: DifferentiableHead, train: HeadInputs, rows: Tensor) -> list[LayerFactors]:
    rows = rows.to(train.features.device)
    return loss_factors(head, HeadInputs(train.features[rows], train.labels[rows.to(train.labels.device)], train.head))


def _relative(errors: Tensor, references: Tensor) -> float:
    """Largest ratio of lengths; a vanishing gradient is solved exactly by zero."""
    return float(torch.where(references > 0, errors / references, errors).max())


def _solve_factored(cholesky: Tensor, right: Tensor) -> Tensor:
    """(LLᵀ)⁻¹ right, in two triangular solves: `torch.cholesky_solve` copies the whole factor at each call."""
    half = torch.linalg.solve_triangular(cholesky, right, upper=False)
    return torch.linalg.solve_triangular(cholesky.mT, half, upper=True)


class _SolvedScorer(ABC):
    """What both solvers share: the split, the bookkeeping, the blocks."""

    bytes_per_query: int
    bytes_per_row: int
    bytes_held: int

    def __init__(self, head: DifferentiableHead, train: HeadInputs, description: dict[str, object], budget: int):
        self.head = head
        self.train = train
        self.n_train = len(train)
        self.memory_budget = budget
        self.description = description

    def describe(self) -> dict[str, object]:
        """Settings, λ, residual, sign and unit."""
        return dict(self.description)

    def _train_factors(self, start: int, stop: int) -> list[LayerFactors]:
        return loss_factors(self.head, self.train.rows(start, stop))

    def self_influence(self) -> Tensor:
        """∇L_iᵀ(H + λI)⁻¹∇L_i of each train example, [n_train], float64."""
        parts = [
            self._self_influence(self._train_factors(start, stop))
            for start, stop in blocks(self.n_train, self.bytes_per_query, self.memory_budget)
        ]
        return torch.cat(parts)

    @abstractmethod
    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        """The same for a block of train examples, given their gradients in factors."""


class DirectScorer(_SolvedScorer):
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
        gradients = dense(_loss_factors_at(head, train, _sample(self.n_train)))
        errors = self._solve(gradients) @ matrix - gradients
        self.description["residual"] = _relative(errors.norm(dim=1), gradients.norm(dim=1))
        if self.description["curvature"] == "hessian":
            self.description["smallest_eigenvalue"] = smallest_eigenvalue(matrix) - damping

    def query(self, test: HeadInputs, index: Tensor) -> Tensor:
        """(H + λI)⁻¹∇L_t, [tests, P]."""
        check_inputs(test, self.head.n_classes, index, "test")
        return self._solve(dense(loss_factors(self.head, test)))

    def scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        """[tests, stop − start]."""
        return query @ dense(self._train_factors(start, stop)).T

    def _solve(self, gradients: Tensor) -> Tensor:
        return _solve_factored(self.cholesky, gradients.T).T

    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        return torch.linalg.solve_triangular(self.cholesky, dense(factors).T, upper=False).square().sum(0)


@dataclass(frozen=True)
class DualQuery:
    """Factored gradients of a block of tests and (K + nλI)⁻¹G∇L_t, [R, tests]."""

    factors: list[LayerFactors]
    coefficients: Tensor


class DualScorer(_SolvedScorer):
    """Solves through the Gram matrix of the GGN's rows.

    Args:
        head: the head.
        train: the train split.
        damping: λ.
        description: for `describe`; the residual is added.
        memory_budget: bytes of working memory.
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
        self.cholesky = torch.linalg.cholesky(matrix)
        matrix.diagonal().sub_(self.n_train * damping)
        self.description["residual"] = self._residual(matrix)

    def _residual(self, matrix: Tensor) -> float:
        """‖(H + λI)x − g‖/‖g‖ without leaving the row space: the error is Gᵀu, u = Gx/n − w, of length √(uᵀKu)."""
        factors = _loss_factors_at(self.head, self.train, _sample(self.n_train))
        products = gram(self.root, factors)
        coefficients = _solve_factored(self.cholesky, products)
        u = (products - matrix @ coefficients) / (self.n_train * self.damping) - coefficients
        return _relative((u * (matrix @ u)).sum(0).clamp_min(0).sqrt(), squared_norms(factors).sqrt())

    def query(self, test: HeadInputs, index: Tensor) -> DualQuery:
        """Gradients and row coefficients of the tests."""
        check_inputs(test, self.head.n_classes, index, "test")
        factors = loss_factors(self.head, test)
        return DualQuery(factors, _solve_factored(self.cholesky, gram(self.root, factors)))

    def scores(self, query: DualQuery, start: int, stop: int) -> Tensor:
        """[tests, stop − start]."""
        factors = self._train_factors(start, stop)
        plain = gram(query.factors, factors)
        return plain.addmm_(query.coefficients.T, gram(self.root, factors), alpha=-1).div_(self.damping)

    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        explained = torch.linalg.solve_triangular(self.cholesky, gram(self.root, factors), upper=False)
        return (squared_norms(factors) - explained.square().sum(0)) / self.damping


def indefinite_message(smallest: float, damping: float, mean_eigenvalue: float) -> str:
    """The refusal of an exact Hessian that damping leaves indefinite; `mean_eigenvalue` is above 0."""
    # 1 % above the limit, so that following the advice does not end in a singular matrix.
    enough = 1.01 * -smallest / mean_eigenvalue
    return (
        f"The exact Hessian of the train loss has smallest eigenvalue {smallest:.4g} and λ is {damping:.4g}; expected "
        f"smallest + λ > 0: raise the method's damping to at least {enough:.3g} or use curvature=ggn."
    )
