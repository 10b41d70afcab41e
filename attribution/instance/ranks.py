"""Mean ranks of train examples, for scores whose mean over tests says nothing because some are −∞."""

from __future__ import annotations

import torch
from torch import Tensor

BYTES_PER_KEPT = 4
"""Memory per score of a row that is kept until it is ranked."""

BYTES_PER_RANKED = 72
"""Working memory per score while its row is sorted."""

_PAIRS_PER_SORT = 2**20
"""Scores that are sorted at a time; more would leave the caches."""


def ranks_whole_rows(scorer: object) -> bool:
    """Whether a scorer declares that its scores may be −∞."""
    return bool(getattr(scorer, "ranks", False))


def average_ranks(scores: Tensor) -> Tensor:
    """Rank of each score in its row, 1 the highest; equal scores share the mean of their ranks.

    Args:
        scores: [tests, n], no NaN.

    Returns:
        [tests, n], float64; whole and half numbers, so that sums of them are exact.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.ranks import average_ranks
        >>> average_ranks(torch.tensor([[0.1, 0.7, 0.7, -torch.inf]]))
        tensor([[3.0000, 1.5000, 1.5000, 4.0000]], dtype=torch.float64)
    """
    n = scores.shape[1]
    ordered, position = scores.sort(dim=1, descending=True)
    place = torch.arange(n, device=scores.device)
    differs = ordered[:, 1:] != ordered[:, :-1]
    edge = differs.new_ones(len(scores), 1)
    first = torch.where(torch.cat([edge, differs], 1), place, 0).cummax(1).values
    last = torch.where(torch.cat([differs, edge], 1), place, n).flip(1).cummin(1).values.flip(1)
    ranks = (first + last).double() / 2 + 1
    return torch.empty_like(ranks).scatter_(1, position, ranks)


class RankSums:
    """Sum over a block of tests of each train example's rank, from the blocks of train rows in their order.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.ranks import RankSums
        >>> sums = RankSums()
        >>> sums.update(torch.tensor([[0.9, 0.1], [0.2, 0.3]]))  # two tests, train rows 0 and 1
        >>> sums.update(torch.tensor([[0.5], [0.4]]))  # train row 2
        >>> sums.result(memory=2**20)  # ranks 1 + 3, 3 + 2 and 2 + 1
        tensor([4., 5., 3.], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []

    def update(self, scores: Tensor) -> None:
        """Keep scores [tests, rows], float32, of the next train rows."""
        self.blocks.append(scores)

    def result(self, memory: int) -> Tensor:
        """Sums [n_train], float64, on the CPU; `memory` in bytes bounds what the sorting takes, one test at least."""
        n_tests, n_train = len(self.blocks[0]), sum(block.shape[1] for block in self.blocks)
        total = torch.zeros(n_train, dtype=torch.float64, device=self.blocks[0].device)
        step = max(1, min(_PAIRS_PER_SORT, memory // BYTES_PER_RANKED) // max(1, n_train))
        for start in range(0, n_tests, step):
            rows = torch.cat([block[start : start + step] for block in self.blocks], 1)
            total += average_ranks(rows).sum(0)
        return total.cpu()
