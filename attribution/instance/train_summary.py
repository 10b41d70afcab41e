"""Summary of each train example over all tests."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from twinlens.attribution.instance.protocol import InstanceScores

VOTES_TOP = 10
"""Length of the lists in which an instance's appearances are counted as votes."""


@dataclass(frozen=True)
class TrainSummary:
    """Summary of each train example over all tests; shards of tests are reduced with `merge`.

    Attributes:
        sum: sum of scores over tests, [n_train], float64.
        max: highest score over tests, [n_train], float64; −∞ before any test.
        votes: number of tests that have the example in their top 10, [n_train], int64; −∞ is no vote.
        n_test: number of tests.
        rank_sum: sum over tests of the example's rank among all train examples, 1 = best, equal scores sharing the
            mean of their ranks, [n_train], float64. A single NaN where the scorer does not declare `ranks`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.train_summary import TrainSummary
        >>> scores = torch.tensor([[0.2, -0.4], [0.4, 0.6]])  # two tests, two train examples
        >>> one = TrainSummary(sum=scores[0], max=scores[0], votes=torch.tensor([1, 0]), n_test=1)
        >>> other = TrainSummary(sum=scores[1], max=scores[1], votes=torch.tensor([0, 1]), n_test=1)
        >>> columns = one.merge(other).finalize()
        >>> columns["mean"].round(decimals=2), columns["max"], columns["votes"]
        (tensor([0.3000, 0.1000]), tensor([0.4000, 0.6000]), tensor([1, 1]))
    """

    sum: Tensor
    max: Tensor
    votes: Tensor
    n_test: int
    rank_sum: Tensor = field(default_factory=lambda: torch.tensor(math.nan, dtype=torch.float64))

    @staticmethod
    def empty(n_train: int) -> TrainSummary:
        """The summary of no tests."""
        return TrainSummary(
            torch.zeros(n_train, dtype=torch.float64),
            torch.full((n_train,), -math.inf, dtype=torch.float64),
            torch.zeros(n_train, dtype=torch.int64),
            0,
            torch.zeros((), dtype=torch.float64),  # neutral for both, sums of ranks and the NaN that stands for none
        )

    def merge(self, other: TrainSummary) -> TrainSummary:
        """The summary of both sets of tests."""
        return TrainSummary(
            self.sum + other.sum,
            torch.maximum(self.max, other.max),
            self.votes + other.votes,
            self.n_test + other.n_test,
            self.rank_sum + other.rank_sum,
        )

    def finalize(self, self_influence: Tensor | None = None) -> dict[str, Tensor]:
        """Columns of the stored summary, one row per train example.

        Args:
            self_influence: [n_train] of the scorer, or None where the method has none.

        Returns:
            `index`, `mean` (NaN where a score was −∞), `max`, `votes` and `self_influence` (NaN where there is none);
            with ranks also `mean_rank`, the lower the better, by which to order the train split. Each [n_train].

        Raises:
            ValueError: a summary of no test.
        """
        if self.n_test == 0:
            raise ValueError("A train summary needs at least one test.")
        n_train = len(self.sum)
        own = torch.full((n_train,), math.nan, dtype=torch.float64) if self_influence is None else self_influence.cpu()
        columns = {
            "index": torch.arange(n_train),
            "mean": torch.where(self.sum > -math.inf, self.sum / self.n_test, math.nan),
            "max": self.max,
            "votes": self.votes,
            "self_influence": own,
        }
        if not bool(self.rank_sum.isnan().any()):
            columns["mean_rank"] = self.rank_sum / self.n_test
        return columns


def count_votes(scores: InstanceScores, n_train: int) -> Tensor:
    """Number of tests that have each train example in their top 10, with a score above −∞, [n_train], int64."""
    index, score = scores.top_index[:, :VOTES_TOP], scores.top_score[:, :VOTES_TOP]
    return torch.bincount(index[score > -math.inf], minlength=n_train)
