"""The subsets of the train split that `retraining` trains on and `diversity` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.train_ranking import RankBy, least_influential, most_influential, random_ranking

Group = Literal["most", "least", "random"]
RANDOM = "random_instances"
"""Name under which random subsets stand in results, that of the instance method that draws at random."""


@dataclass(frozen=True)
class Subset:
    """Rows of the train split.

    Attributes:
        method: whose ranking; `random_instances` for random rows.
        group: which end of it.
        percent: how much of the train split.
        seed: of the draw where it is random, else None.
        rows: train rows, the first the most extreme, [rows].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.subsets import Subset
        >>> Subset("gradsim", "most", percent=10, seed=None, rows=torch.tensor([7, 2])).rows
        tensor([7, 2])
    """

    method: str
    group: Group
    percent: float
    seed: int | None
    rows: Tensor


@dataclass(frozen=True)
class SubsetGrid:
    """Subsets that are asked for: sizes, ends of the ranking, seeds.

    Attributes:
        fractions: sizes in per cent of the train split.
        rank_by: `mean | votes`, see `train_ranking`.
        seeds: of the random subsets, and of every fit.
        groups: `most`, `least` and `random`.

    Raises:
        UserError: a size outside (0, 100], no size, no group, no seed.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.subsets import SubsetGrid
        >>> grid = SubsetGrid(fractions=[50], seeds=[0], groups=["most", "least"])
        >>> [(subset.group, subset.rows.tolist()) for subset in grid.subsets({"gradsim": torch.tensor([3, 0, 2, 1])})]
        [('most', [3, 0]), ('least', [1, 2])]
    """

    fractions: Sequence[float] = (10,)
    rank_by: RankBy = "mean"
    seeds: Sequence[int] = (0, 1, 2)
    groups: Sequence[Group] = ("most", "least", "random")

    def __post_init__(self) -> None:
        if any(not 0 < fraction <= 100 for fraction in self.fractions):
            raise UserError(
                f"fractions={list(self.fractions)} of an evaluation of subsets are no percentages of the train split; "
                "expected numbers above 0 and at most 100: write e.g. evaluation.retraining.fractions=[10]."
            )
        for option in ("fractions", "seeds", "groups"):
            if not getattr(self, option):
                raise UserError(
                    f"{option}=[] of an evaluation of subsets asks for nothing, expected at least one: name one, e.g. "
                    f"in evaluation.retraining.{option}."
                )

    @property
    def variant(self) -> str:
        """Settings other than the default, as results.csv states them."""
        return "" if self.rank_by == "mean" else f"rank_by={self.rank_by}"

    def subsets(self, rankings: Mapping[str, Tensor]) -> list[Subset]:
        """All subsets; random ones once per size and seed, whatever the number of methods.

        Args:
            rankings: method → train rows, best first, [n_train].
        """
        if not rankings:
            return []
        n_train = len(next(iter(rankings.values())))
        found = []
        for percent in self.fractions:
            for name, ranking in rankings.items():
                for group, part in (("most", most_influential), ("least", least_influential)):
                    if group in self.groups:
                        found.append(Subset(name, group, percent, None, part(ranking, percent)))  # type: ignore[arg-type]
            if "random" in self.groups:
                for seed in self.seeds:
                    rows = most_influential(random_ranking(n_train, seed), percent)
                    found.append(Subset(RANDOM, "random", percent, seed, rows))
        return found
