"""One ranking of the whole train split per method (first paper, Sec. 5.3: the first n % most and least influential)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.counter_random import uniform

RankBy = Literal["mean", "votes"]


def train_ranking(summary: Mapping[str, Tensor], rank_by: RankBy = "mean") -> Tensor:
    """Train rows from the most to the least influential; of equal values the lower row comes first.

    Args:
        summary: columns of a method's train summary, [n_train] each: `mean` score over the explained examples, `votes`
            (top-10 lists the row stands in) and, for methods whose scores may be −∞, `mean_rank` (1 is best). Where
            `mean_rank` is given it takes the place of a mean that would be −∞ for nearly every row.
        rank_by: `mean`, or `votes` (the paper's choice for NA-Instances).

    Returns:
        [n_train], int64.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.train_ranking import train_ranking
        >>> summary = {"mean": torch.tensor([0.1, 0.9, 0.4]), "votes": torch.tensor([7, 0, 2])}
        >>> train_ranking(summary), train_ranking(summary, rank_by="votes")
        (tensor([1, 2, 0]), tensor([0, 2, 1]))
    """
    if rank_by == "votes":
        return torch.argsort(summary["votes"], descending=True, stable=True)
    ranks = summary.get("mean_rank")
    if ranks is not None and not bool(torch.isnan(ranks).any()):
        return torch.argsort(ranks, stable=True)
    return torch.argsort(summary["mean"], descending=True, stable=True)


def random_ranking(n_train: int, seed: int) -> Tensor:
    """A random order of the train rows, [n_train]; its first parts are nested random subsets."""
    drawn = uniform(seed, torch.zeros(1, dtype=torch.int64), torch.arange(n_train))[0]
    return torch.argsort(drawn, descending=True, stable=True)


def share_of_rows(n_train: int, percent: float) -> int:
    """Number of rows in `percent` % of the train split: rounded, at least one."""
    return min(n_train, max(1, round(n_train * percent / 100)))


def most_influential(ranking: Tensor, percent: float) -> Tensor:
    """The first `percent` % of a ranking [n_train], best first, [rows]."""
    return ranking[: share_of_rows(len(ranking), percent)]


def least_influential(ranking: Tensor, percent: float) -> Tensor:
    """The last `percent` % of a ranking [n_train], the most negative first, [rows]."""
    return ranking.flip(0)[: share_of_rows(len(ranking), percent)]
