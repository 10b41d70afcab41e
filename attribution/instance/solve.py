"""Base of all solvers of influence functions: the split, the bookkeeping, the blocks, the residual.

A solver applies (H + λI)⁻¹ to head gradients, all in float64. One solver per file: `direct`, `dual`, `cg`, `lissa`,
and `kronecker` for (EK-)FAC.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.instance.curvature import blocks
from twinlens.attribution.instance.factors import LayerFactors, dense
from twinlens.attribution.instance.head_gradients import DifferentiableHead, check_inputs, loss_factors
from twinlens.attribution.instance.inputs import HeadInputs

RESIDUAL_SAMPLE = 8
"""Train gradients, evenly spaced, on which a solver reports its residual."""


@dataclass(frozen=True)
class SolverPlan:
    """Cost of a solver.

    Attributes:
        operations: floating-point operations of preparation and self-influence.
        memory: bytes held at the peak.

    Example:
        >>> from twinlens.attribution.example_models import example_head_inputs
        >>> from twinlens.attribution.instance.direct import direct_plan
        >>> from twinlens.attribution.instance.head_gradients import differentiable_head
        >>> plan = direct_plan(differentiable_head(example_head_inputs()[0].head, "head"), n_train=1000)
        >>> plan.memory  # bytes: two matrices of 4 × 4 numbers
        256
    """

    operations: float
    memory: int


def residual_sample(n: int) -> Tensor:
    """Rows of a train split of n examples on which residuals are reported, [rows], int64."""
    return torch.linspace(0, n - 1, min(RESIDUAL_SAMPLE, n)).round().long()


def loss_factors_at(head: DifferentiableHead, train: HeadInputs, rows: Tensor) -> list[LayerFactors]:
    """Factored gradients of some train rows."""
    rows = rows.to(train.features.device)
    return loss_factors(head, HeadInputs(train.features[rows], train.labels[rows.to(train.labels.device)], train.head))


def largest_ratio(errors: Tensor, references: Tensor) -> float:
    """Largest ratio of errors to references, lengths [gradients]; a vanishing gradient is solved exactly by zero."""
    return float(torch.where(references > 0, errors / references, errors).max())


class SolvedScorer(ABC):
    """The split, the bookkeeping and the blocks of self-influence.

    Attributes:
        bytes_per_query, bytes_per_row, bytes_held: see `ScorerSize`.
        block_budget: bytes that a block of self-influence may take.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> from twinlens.attribution.instance.solve import SolvedScorer
        >>> scorer = Influence().prepare(example_head_inputs()[0], BUDGET)
        >>> isinstance(scorer, SolvedScorer)
        True
        >>> scorer.self_influence().round(decimals=1)  # highest for the wrongly labelled row 1
        tensor([0.4000, 7.1000, 0.4000, 0.1000], dtype=torch.float64)
    """

    bytes_per_query: int
    bytes_per_row: int
    bytes_held: int

    def __init__(self, head: DifferentiableHead, train: HeadInputs, description: dict[str, object], budget: int):
        self.head = head
        self.train = train
        self.n_train = len(train)
        self.memory_budget = budget
        self.block_budget = budget
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
            for start, stop in blocks(self.n_train, self.bytes_per_query, self.block_budget)
        ]
        return torch.cat(parts)

    @abstractmethod
    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        """The same for a block of train examples, given their gradients in factors."""


def dense_block_bytes(head: DifferentiableHead) -> int:
    """Working memory of one example's written-out gradient and the factors it is made of."""
    return (head.dense_copies * head.n_parameters + head.factor_numbers) * 8


class DenseScorer(SolvedScorer):
    """A solver that turns written-out gradients into solutions, both [tests, P].

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> from twinlens.attribution.instance.solve import DenseScorer
        >>> train, test = example_head_inputs()
        >>> scorer = Influence(solver="cg").prepare(train, BUDGET)
        >>> isinstance(scorer, DenseScorer), scorer.query(test, torch.arange(2)).shape  # [tests, P]
        (True, torch.Size([2, 4]))
    """

    def query(self, test: HeadInputs, index: Tensor) -> Tensor:
        """(H + λI)⁻¹∇L_t, [tests, P]."""
        check_inputs(test, self.head, index, "test")
        return self.solve(dense(loss_factors(self.head, test)))

    def scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        """[tests, stop − start]."""
        return query @ dense(self._train_factors(start, stop)).T

    @abstractmethod
    def solve(self, gradients: Tensor) -> Tensor:
        """(H + λI)⁻¹ applied to each row, [gradients, P] → [gradients, P]."""

    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        gradients = dense(factors)
        return (self.solve(gradients) * gradients).sum(1)
