"""Influence by LiSSA (Agarwal, Bullins and Hazan 2017; Koh and Liang 2017): a recursion over mini-batches.

    v ← g + (1 − λ) v − H_batch v / scale,        solution = v / scale.

Its fixed point over the mean curvature is v / scale = (H + λ·scale·I)⁻¹ g: the recursion's λ acts as an absolute
damping of λ·scale, and it converges where λ + (largest eigenvalue)/scale < 2. The authors of the first paper run
it with dropout on; here the head is in evaluation mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.cg import iterative_block_bytes
from twinlens.attribution.instance.factors import dense
from twinlens.attribution.instance.products import CurvatureProducts
from twinlens.attribution.instance.solve import DenseScorer, largest_ratio, loss_factors_at, residual_sample

GROWTH_LIMIT = 10.0
"""‖v‖ never exceeds ‖g‖/λ where no eigenvalue leaves (0, scale]; ten times that is divergence, not oscillation."""


@dataclass(frozen=True)
class Recursion:
    """The recursion's constants.

    Attributes:
        damping: λ, between 0 and 1.
        depth: number of steps as a share of the batches in the train split; above 1 it is gone through again.
        scale: what curvature products are divided by.
        batch_size: train examples per step.
        repeats: independent recursions that are averaged.
        seed: draws the order of the train examples.

    Example:
        >>> from twinlens.attribution.instance.lissa import Recursion
        >>> recursion = Recursion(damping=0.01, depth=0.5, scale=100.0, batch_size=2, repeats=1, seed=0)
        >>> recursion.n_steps(n_train=8), [len(rows) for rows in recursion.batches(8, repeat=0)]
        (2, [2, 2])
    """

    damping: float
    depth: float
    scale: float
    batch_size: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        limits = {
            "damping": 0 < self.damping < 1,
            "lissa_depth": self.depth > 0,
            "lissa_scale": self.scale > 0,
            "lissa_batch": self.batch_size >= 1,
            "lissa_repeats": self.repeats >= 1,
        }
        wrong = [name for name, holds in limits.items() if not holds]
        if wrong:
            raise UserError(
                f"solver=lissa cannot run with this {wrong[0]}; expected 0 < damping < 1 (the recursion's own, not "
                "relative to an eigenvalue), lissa_depth > 0, lissa_scale > 0, lissa_batch ≥ 1 and lissa_repeats ≥ 1: "
                "start from method=influence_lissa."
            )

    def n_steps(self, n_train: int) -> int:
        """Steps of one recursion."""
        return max(1, round(self.depth * math.ceil(n_train / self.batch_size)))

    def batches(self, n_train: int, repeat: int) -> Iterator[Tensor]:
        """Train rows of each step, [batch_size] or fewer: a fresh permutation for every pass, one for all gradients."""
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * repeat)
        left = self.n_steps(n_train)
        while left > 0:
            for batch in torch.randperm(n_train, generator=generator).split(self.batch_size)[:left]:
                yield batch
                left -= 1


class LissaScorer(DenseScorer):
    """Solves by the recursion.

    Args:
        products: the curvature.
        recursion: its constants.
        description: for `describe`; the residual on a sample of train gradients is added.
        memory_budget: bytes of working memory.

    Raises:
        UserError: if the recursion diverges, with the growth.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> method = Influence(solver="lissa", damping=0.01, lissa_scale=10, lissa_depth=50, lissa_batch=2)
        >>> scorer = method.prepare(train, BUDGET)
        >>> scorer.describe()["steps"], scorer.describe()["damping_absolute"]
        (100, 0.1)
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).sign()
        tensor([[ 1., -1., -1.,  1.],
                [-1., -1.,  1.,  1.]], dtype=torch.float64)
    """

    def __init__(
        self, products: CurvatureProducts, recursion: Recursion, description: dict[str, object], memory_budget: int
    ) -> None:
        super().__init__(products.head, products.train, description, memory_budget)
        self.bytes_per_row, self.bytes_per_query = iterative_block_bytes(products.head)
        self.bytes_held = 0
        self.block_budget = memory_budget // 2  # the products take the other half
        self.products = products
        self.recursion = recursion
        gradients = dense(loss_factors_at(self.head, self.train, residual_sample(self.n_train)))
        solutions = self.solve(gradients)
        errors = products.apply(solutions) + recursion.damping * recursion.scale * solutions - gradients
        self.description["residual"] = largest_ratio(errors.norm(dim=1), gradients.norm(dim=1))

    def solve(self, gradients: Tensor) -> Tensor:
        """The mean over the repeats of v / scale, [gradients, P] → [gradients, P].

        Raises:
            UserError: if the recursion diverges, with the growth.
        """
        total = torch.zeros_like(gradients)
        for repeat in range(self.recursion.repeats):
            total += self._recursion(gradients, repeat)
        return total.div_(self.recursion.repeats * self.recursion.scale)

    def _recursion(self, gradients: Tensor, repeat: int) -> Tensor:
        constants = self.recursion
        lengths = gradients.norm(dim=1)
        v = gradients.clone()
        for step, rows in enumerate(constants.batches(self.n_train, repeat)):
            product = self.products.apply(v, rows)
            v.mul_(1 - constants.damping).add_(gradients).sub_(product, alpha=1 / constants.scale)
            growth = largest_ratio(v.norm(dim=1), lengths)
            if not growth <= GROWTH_LIMIT / constants.damping:
                raise UserError(
                    f"LiSSA diverges: after {step + 1} steps a solution is {growth:.3g} times as long as its gradient; "
                    f"expected at most 1/damping = {1 / constants.damping:.3g}: raise lissa_scale (now "
                    f"{constants.scale:g}) above the largest eigenvalue of a batch, or use solver=direct."
                )
        return v
