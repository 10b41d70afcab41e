"""Overlap of two methods: train instances and neurons in common (first paper, Sec. 6.1, Figures 3, 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.train_ranking import RankBy, most_influential

UNITS_PER_LAYER = 2**32
"""A neuron as one number: layer · this + unit."""


@dataclass(frozen=True)
class ComparedInstances:
    """An instance method, under each of its seeds (one where it draws nothing).

    Attributes:
        rankings: train rows, best first, [seeds, n_train].
        lists: best train rows of each explained example, [seeds, tests, k].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.overlap import ComparedInstances
        >>> method = ComparedInstances(rankings=torch.tensor([[2, 0, 1, 3]]), lists=torch.tensor([[[2, 1], [0, 2]]]))
        >>> method.rankings.shape, method.lists.shape  # one seed, 4 train rows, 2 tests
        (torch.Size([1, 4]), torch.Size([1, 2, 2]))
    """

    rankings: Tensor
    lists: Tensor


@dataclass(frozen=True)
class ComparedNeurons:
    """A neuron method, under each of its seeds.

    Attributes:
        layer, unit: best neurons of each explained example, best first, [seeds, tests, r]; −1 where a list has ended.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.overlap import UNITS_PER_LAYER, ComparedNeurons
        >>> method = ComparedNeurons(layer=torch.tensor([[[0, -1]]]), unit=torch.tensor([[[5, -1]]]))
        >>> method.first(2)  # neuron 5 of layer 0; then the list has ended
        tensor([[[ 5, -1]]])
    """

    layer: Tensor
    unit: Tensor

    def first(self, n: int) -> Tensor:
        """The first n entries as one number each, −1 where a list has ended, [seeds, tests, n]."""
        layer, unit = self.layer[..., :n].long(), self.unit[..., :n].long()
        return torch.where(layer < 0, -1, layer * UNITS_PER_LAYER + unit)


@dataclass(frozen=True)
class Overlap:
    """Shares of common entries, in per cent.

    `instance_overlap` (k = n %): of the train instances among the first n % of A's ranking, how many are among the
    first n % of B's. `instance_overlap_per_test` (k = n): the same for the first n of each explained example's list.
    `only_na`, `only_ia`, `common` (k = n): of the different neurons among the first n of either list, which stand in
    one list alone or in both; the mean over explained examples. Of methods with seeds, the mean over seeds (and over
    pairs of seeds) of each example comes first. Sizes beyond a stored list are left out.

    Args:
        fractions: sizes of the first parts of rankings, in per cent of the train split.
        top: lengths of the lists of instances.
        neurons: lengths of the lists of neurons.
        rank_by: `mean | votes`, see `train_ranking`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.overlap import ComparedInstances, Overlap
        >>> gradsim = ComparedInstances(torch.tensor([[2, 0, 1, 3]]), torch.tensor([[[2, 1]]]))
        >>> influence = ComparedInstances(torch.tensor([[2, 3, 1, 0]]), torch.tensor([[[1, 2]]]))
        >>> test = Overlap(fractions=[50], top=[1, 2], neurons=[1])
        >>> rows = test.evaluate({"gradsim": gradsim, "influence": influence}, na={}, ia={})
        >>> [(row.metric, row.k, row.value) for row in rows]  # per cent
        [('instance_overlap', 50, 50.0), ('instance_overlap_per_test', 1, 0.0), ('instance_overlap_per_test', 2, 100.0)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    fractions: Sequence[float] = (10, 20, 30, 40, 50)
    top: Sequence[int] = (1, 10, 100)
    neurons: Sequence[int] = (1, 5, 10, 20, 50, 100)
    rank_by: RankBy = "mean"
    requires: ClassVar[str] = "lists"

    def __post_init__(self) -> None:
        if any(not 0 < fraction <= 100 for fraction in self.fractions) or any(
            n < 1 for n in (*self.top, *self.neurons)
        ):
            raise UserError(
                "evaluation.overlap has sizes that no list has; expected fractions above 0 and at most 100, top and "
                "neurons of at least 1: set e.g. evaluation.overlap.fractions=[10]."
            )

    def missing(self, available: Available) -> str:
        """Name what the run lacks, empty where nothing is missing."""
        if len(available.instance) > 1 or (available.neuron and available.ia_neurons):
            return ""
        return (
            "two instance methods, or a neuron method and one that leads from instances to neurons "
            "(e.g. method=[gradsim,influence])"
        )

    def evaluate(
        self,
        instances: Mapping[str, ComparedInstances],
        na: Mapping[str, ComparedNeurons],
        ia: Mapping[str, ComparedNeurons],
    ) -> list[Result]:
        """Results of every pair of instance methods, and of every pair of a neuron and an IA-Neurons method."""
        results = []
        for first, second in combinations(instances, 2):
            results += self._rankings(first, second, instances[first].rankings, instances[second].rankings)
            results += self._lists(first, second, instances[first].lists, instances[second].lists)
        for neuron_method, of_neurons in na.items():
            for bridge, of_bridge in ia.items():
                results += self._neurons(neuron_method, bridge, of_neurons, of_bridge)
        return results

    def _rankings(self, a: str, b: str, of_a: Tensor, of_b: Tensor) -> list[Result]:
        variant = "" if self.rank_by == "mean" else f"rank_by={self.rank_by}"
        results = []
        for percent in self.fractions:
            firsts_a = [most_influential(ranking, percent) for ranking in of_a]
            firsts_b = [most_influential(ranking, percent) for ranking in of_b]
            shares = [100 * float(torch.isin(x, y).double().mean()) for x in firsts_a for y in firsts_b]
            mean, error = mean_and_error(shares)
            results.append(
                Result(
                    "instance_overlap", mean, error, n=len(firsts_a[0]), k=percent,
                    reference_group=b, variant=variant, method=a,
                )
            )  # fmt: skip
        return results

    def _lists(self, a: str, b: str, of_a: Tensor, of_b: Tensor) -> list[Result]:
        results = []
        for n in self.top:
            if n <= min(of_a.shape[-1], of_b.shape[-1]):
                pairs = [compare_lists(x[:, :n], y[:, :n]) for x in of_a for y in of_b]
                shares = torch.stack([100 * p.common / n for p in pairs]).mean(0)
                mean, error = mean_and_error(shares)
                results.append(
                    Result("instance_overlap_per_test", mean, error, n=len(shares), k=n, reference_group=b, method=a)
                )
        return results

    def _neurons(self, na: str, ia: str, of_na: ComparedNeurons, of_ia: ComparedNeurons) -> list[Result]:
        results = []
        for n in self.neurons:
            if n > min(of_na.layer.shape[-1], of_ia.layer.shape[-1]):
                continue
            pairs = [compare_lists(x, y) for x in of_na.first(n) for y in of_ia.first(n)]
            union = torch.stack([p.only_first + p.only_second + p.common for p in pairs])
            there = (union > 0).all(0)
            if not bool(there.any()):
                continue
            for metric, field in (("only_na", "only_first"), ("only_ia", "only_second"), ("common", "common")):
                shares = (100 * torch.stack([getattr(p, field) for p in pairs]) / union)[:, there].mean(0)
                mean, error = mean_and_error(shares)
                results.append(Result(metric, mean, error, n=len(shares), k=n, reference_group=na, method=ia))
        return results


@dataclass(frozen=True)
class Compared:
    """Numbers of different entries of two lists per example.

    Attributes:
        only_first, only_second, common: entries of one list alone, or of both, [tests] each, float64.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.overlap import compare_lists
        >>> found = compare_lists(torch.tensor([[3, 3, 5]]), torch.tensor([[5, 7]]))  # 3 counts once
        >>> found.only_first, found.only_second, found.common
        (tensor([1.], dtype=torch.float64), tensor([1.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """

    only_first: Tensor
    only_second: Tensor
    common: Tensor


def compare_lists(first: Tensor, second: Tensor) -> Compared:
    """Compare lists as sets: repeated entries count once, negative ones not at all.

    Args:
        first, second: int64 [tests, any length each].
    """
    sets = [_without_repeats(entries) for entries in (first, second)]
    together = torch.cat(sets, 1).sort(1).values
    common = ((together[:, 1:] == together[:, :-1]) & (together[:, 1:] >= 0)).sum(1).double()
    sizes = [(entries >= 0).sum(1).double() for entries in sets]
    return Compared(sizes[0] - common, sizes[1] - common, common)


def _without_repeats(entries: Tensor) -> Tensor:
    """Sorted entries in which all but one of equal ones are −1, [tests, length]."""
    ordered = entries.sort(1).values
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(repeated, -1)
