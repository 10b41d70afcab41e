"""Scorer of TracIn over stored rows of projected gradients, which every checkpoint has of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.gradients.projected import RowScorer
from twinlens.attribution.gradients.rows import GradientRows


@dataclass(frozen=True)
class CheckpointRows:
    """One split under every kept checkpoint.

    Attributes:
        steps: its rows and the learning rate that led to the checkpoint, in the order of training.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> from twinlens.attribution.instance.tracin_rows import CheckpointRows
        >>> rows = GradientRows(row_layout(["score"], [(1, 2)]), (torch.ones(3, 2),))
        >>> len(CheckpointRows(((rows, 0.1), (rows, 0.05))).rows(0, 2))
        2
    """

    steps: tuple[tuple[GradientRows, float], ...]

    def __len__(self) -> int:
        return len(self.steps[0][0]) if self.steps else 0

    def rows(self, start: int, stop: int) -> CheckpointRows:
        """A contiguous part of the examples."""
        return CheckpointRows(tuple((rows.rows(start, stop), rate) for rows, rate in self.steps))


class TracInRowScorer:
    """`InstanceScorer` of TracIn over layers: Σ_c η_c ⟨∇_c L_t, ∇_c L_i⟩ of projected gradients.

    Args:
        train: the train split.
        description: sign and unit; settings of the rows, learning rates and numbers are added.
        memory_budget: bytes of working memory.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> from twinlens.attribution.instance.tracin_rows import CheckpointRows, TracInRowScorer
        >>> layout = row_layout(["score"], [(1, 2)])
        >>> one, two = (GradientRows(layout, (torch.tensor([[x, 0.0], [0.0, x]]),)) for x in (1.0, 2.0))
        >>> scorer = TracInRowScorer(CheckpointRows(((one, 0.1), (two, 0.05))), {}, 2**20)
        >>> test = GradientRows(layout, (torch.tensor([[1.0, 1.0]]),))
        >>> scorer.scores(scorer.query(CheckpointRows(((test, 0.1), (test, 0.05))), torch.tensor([0])), 0, 2)
        tensor([[0.2000, 0.2000]])
        >>> scorer.self_influence()  # 0.1 · 1 + 0.05 · 4
        tensor([0.3000, 0.3000], dtype=torch.float64)
    """

    def __init__(self, train: CheckpointRows, description: dict[str, object], memory_budget: int) -> None:
        self.rates = [rate for _, rate in train.steps]
        self.scorers = [RowScorer(rows, {}, memory_budget) for rows, _ in train.steps]
        self.n_train = len(train)
        self.bytes_per_query = sum(scorer.bytes_per_query for scorer in self.scorers)
        self.bytes_per_row = 0
        self.bytes_held = max(scorer.bytes_held for scorer in self.scorers)  # they work one after the other
        self.description = description

    def describe(self) -> dict[str, object]:
        """Settings, learning rates, sign and unit."""
        rates = {"checkpoints": len(self.rates), "learning_rates": self.rates}
        return {**rates, **self.scorers[0].describe(), **self.description}

    def query(self, test: CheckpointRows, index: Tensor) -> list[list[Tensor]]:
        """The tests' gradients under every checkpoint times its learning rate; `index` [tests], their rows."""
        return [
            [group * rate for group in scorer.query(rows, index)]
            for scorer, (rows, _), rate in zip(self.scorers, test.steps, self.rates, strict=True)
        ]

    def scores(self, query: list[list[Tensor]], start: int, stop: int) -> Tensor:
        """[tests, stop − start], float32."""
        parts = [scorer.scores(own, start, stop) for scorer, own in zip(self.scorers, query, strict=True)]
        return torch.stack(parts).sum(0)

    def self_influence(self) -> Tensor:
        """Σ_c η_c ‖∇_c L_i‖² of each train example, [n_train], float64."""
        parts = [rate * scorer.self_influence() for scorer, rate in zip(self.scorers, self.rates, strict=True)]
        return torch.stack(parts).sum(0)
