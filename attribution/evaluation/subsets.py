"""The subsets of the train split that `retraining` trains on and `diversity` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.train_ranking import RankBy, least_influential, most_influential, random_ranking

Group = Literal["most", "least", "random", "same_labels"]
RANDOM = "random_instances"
"""Name under which random subsets stand in results, that of the instance method that draws at random."""
SAME_LABELS = "control=same_labels"
"""Variant of random subsets with as many rows of every label as the subset that they stand beside."""


def without(n_train: int, rows: Tensor) -> Tensor:
    """The train rows but for some, in order, [n_train − rows].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.subsets import without
        >>> without(5, torch.tensor([3, 0]))
        tensor([1, 2, 4])
    """
    left = torch.ones(n_train, dtype=torch.bool)
    left[rows] = False
    return torch.nonzero(left)[:, 0]


@dataclass(frozen=True)
class Subset:
    """Rows of the train split.

    Attributes:
        method: whose ranking; `random_instances` for random rows.
        group: which end of it.
        percent: how much of the train split.
        seed: of the draw where it is random, else None.
        rows: train rows, the first the most extreme, [rows].
        like: method whose subset has the same number of rows of every label, for a random one; else empty.

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
    like: str = ""


@dataclass(frozen=True)
class SubsetGrid:
    """Subsets that are asked for: sizes, ends of the ranking, seeds.

    Attributes:
        fractions: sizes in per cent of the train split.
        rank_by: `mean | votes`, see `train_ranking`.
        seeds: of the random subsets, and of every fit.
        groups: `most`, `least`, `random`; `same_labels`: beside each `most` and `least` as many random rows of every
            label, drawn for each seed.

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

    def subsets(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[Subset]:
        """All subsets; random ones once per size and seed, whatever the number of methods.

        Args:
            rankings: method → train rows, best first, [n_train].
            label: of every train row, −1 where it has none, [n_train]; without it there are no `same_labels`.
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
        if "same_labels" not in self.groups or label is None:
            return found
        return [*found, *self._same_labels(found, rankings, label)]

    def _same_labels(self, found: list[Subset], rankings: Mapping[str, Tensor], label: Tensor) -> list[Subset]:
        """A random subset with the same labels for each seed of every end of a ranking that is asked for."""
        ends = [one for one in found if one.group in ("most", "least")]
        if not ends:  # both ends, where only their controls are asked for
            both = SubsetGrid(self.fractions, self.rank_by, self.seeds, ("most", "least"))
            ends = both.subsets(rankings)
        return [
            Subset(RANDOM, one.group, one.percent, seed, same_labels(one.rows, label, seed), one.method)
            for one in ends
            for seed in self.seeds
        ]


def same_labels(rows: Tensor, label: Tensor, seed: int) -> Tensor:
    """Random train rows, as many of every label as some rows have, [rows].

    Args:
        rows: train rows.
        label: of every train row, [n_train]; rows without one (−1) count as a label of their own.
        seed: of the draw.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.subsets import same_labels
        >>> label = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> label[same_labels(torch.tensor([0, 1, 3]), label, seed=0)].tolist()
        [0, 0, 1]
    """
    order = random_ranking(len(label), seed)
    counts = {int(value): int(n) for value, n in zip(*label[rows].unique(return_counts=True), strict=True)}
    return torch.cat([order[label[order] == value][:n] for value, n in counts.items()])


def label_mix(rows: Tensor, label: Tensor, n_labels: int) -> tuple[Tensor, float]:
    """Rows of every label, [labels], and the entropy of the mix in nats; rows without a label are left out.

    Args:
        rows: train rows.
        label: of every train row, −1 where it has none, [n_train].
        n_labels: number of labels.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.subsets import label_mix
        >>> counts, entropy = label_mix(torch.tensor([0, 1]), torch.tensor([0, 1, 1]), n_labels=3)
        >>> counts.tolist(), round(entropy, 4)  # ln 2
        ([1, 1, 0], 0.6931)
    """
    counts = torch.bincount(label[rows][label[rows] >= 0], minlength=n_labels)
    share = counts[counts > 0].double() / max(int(counts.sum()), 1)
    return counts, float(-(share * share.log()).sum()) + 0.0
