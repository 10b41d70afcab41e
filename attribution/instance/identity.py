"""Influence without curvature, H + λI replaced by λI: gradient similarity divided by λ."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from twinlens.attribution.instance.factors import LayerFactors, gram, squared_norms
from twinlens.attribution.instance.gradsim import similarity_block_bytes
from twinlens.attribution.instance.head_gradients import DifferentiableHead, check_inputs, loss_factors
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.solve import SolvedScorer


class IdentityScorer(SolvedScorer):
    """Inner products of factored gradients over λ.

    Args:
        head: the head.
        train: the train split.
        damping: λ, absolute.
        description: for `describe`.
        memory_budget: bytes of working memory.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> scorer = Influence(curvature="identity", damping=0.5).prepare(train, BUDGET)
        >>> similarity = GradientSimilarity().prepare(train, BUDGET)
        >>> found, plain = (s.scores(s.query(test, torch.arange(2)), 0, 4) for s in (scorer, similarity))
        >>> bool((found - plain / 0.5).abs().max() < 1e-9)
        True
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
        self.bytes_per_row = self.bytes_per_query = similarity_block_bytes(head)
        self.bytes_held = 0
        self.block_budget = memory_budget // 2  # the factors and their squares
        self.damping = damping

    def query(self, test: HeadInputs, index: Tensor) -> list[LayerFactors]:
        """∇L_t/λ of the tests, factored."""
        check_inputs(test, self.head, index, "test")
        return [f.scaled(1 / self.damping) for f in loss_factors(self.head, test)]

    def scores(self, query: list[LayerFactors], start: int, stop: int) -> Tensor:
        """[tests, stop − start]."""
        return gram(query, self._train_factors(start, stop))

    def _self_influence(self, factors: Sequence[LayerFactors]) -> Tensor:
        return squared_norms(factors) / self.damping
