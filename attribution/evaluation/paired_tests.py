"""Paired tests of two methods on the same examples: McNemar's for yes/no outcomes, the bootstrap for means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from twinlens.attribution.evaluation.resampling import interval
from twinlens.attribution.evaluation.statistics import NORMAL_975

EXACT_UP_TO = 1000
"""Discordant examples up to which McNemar's test is exact; beyond, its chi-square with Edwards' correction."""


class Paired(NamedTuple):
    """Outcome of a paired test.

    Attributes:
        difference: mean of the first method less that of the second.
        low, high: ends of its 95 % interval.
        p: two-sided.
        test: name of the test.

    Example:
        >>> from twinlens.attribution.evaluation.paired_tests import Paired
        >>> found = Paired(difference=0.2, low=0.05, high=0.35, p=0.01, test="McNemar, exact")
        >>> found.low > 0  # the first method is the better one
        True
    """

    difference: float
    low: float
    high: float
    p: float
    test: str


def mcnemar(first: Tensor, second: Tensor) -> Paired:
    """McNemar's test of two methods' yes/no outcomes on the same examples, and the difference of their shares.

    Only examples on which the methods differ count. The test is exact (binomial with 1/2) up to `EXACT_UP_TO` of them;
    the interval is Agresti and Min's (2005), Wald's with half an example more in every cell, so that it is no point
    where the methods agree everywhere.

    Args:
        first, second: 0 or 1 for each example, [examples].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.paired_tests import mcnemar
        >>> found = mcnemar(torch.tensor([1, 1, 1, 1, 1, 0]), torch.tensor([0, 0, 0, 0, 0, 0]))
        >>> round(found.difference, 3), found.p, found.test  # five of five differ in one direction: 2 / 2⁵
        (0.833, 0.0625, 'McNemar, exact')
    """
    n = len(first)
    gained, lost = int((first > second).sum()), int((first < second).sum())
    differing = gained + lost
    if differing <= EXACT_UP_TO:
        tail = sum(math.comb(differing, i) for i in range(min(gained, lost) + 1))
        p, test = min(1.0, 2 * tail / 2**differing), "McNemar, exact"
    else:
        statistic = max(abs(gained - lost) - 1, 0) ** 2 / differing
        p, test = math.erfc(math.sqrt(statistic / 2)), "McNemar, chi-square"
    centre = (gained - lost) / (n + 2)
    half = NORMAL_975 * math.sqrt((differing + 1) / (n + 2) - centre**2) / math.sqrt(n + 2)
    return Paired((gained - lost) / n, max(centre - half, -1.0), min(centre + half, 1.0), p, test)


def bootstrap(first: Tensor, second: Tensor, difference: float, runs: int = 1) -> Paired:
    """Percentile bootstrap of the difference of two means, from means of the same resamples.

    p is twice the smaller share of resamples on one side of zero, each side with one resample more, so that it is
    never zero.

    Args:
        first, second: means of resampled examples, [draws] each, see `resampling.resampled_means`.
        difference: of the means of all examples.
        runs: fits of the model that were resampled as well.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.paired_tests import bootstrap
        >>> bootstrap(torch.arange(1.0, 100.0), torch.zeros(99), 50.0).p  # of 99 resamples none is at or below zero
        0.02
    """
    differences = first - second
    draws = len(differences)
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
    over = "examples" if runs == 1 else f"examples and {runs} seeds"
    return Paired(difference, *interval(differences), p, f"bootstrap over {over}")


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979): what each one's level would have to be for all to be tested.

    Example:
        >>> from twinlens.attribution.evaluation.paired_tests import holm
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for place, number in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[number]))
        adjusted[number] = largest
    return adjusted


def is_binary(values: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return bool(((values == 0) | (values == 1)).all())


def paired_test(first: Tensor, second: Tensor, resampled: tuple[Tensor, Tensor]) -> Paired:
    """The test for two methods' values on the same examples: McNemar's where all are 0 or 1 of one fit each.

    Args:
        first, second: [runs, examples]; the same fit in the same place of both.
        resampled: means of resampled examples, [draws] each.
    """
    if len(first) == 1 and is_binary(first) and is_binary(second):
        return mcnemar(first[0], second[0])
    return bootstrap(*resampled, float(torch.mean(first) - torch.mean(second)), len(first))
