"""Rank of the train example that a test example nearly repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.instance_lists import InstanceLists
from twinlens.attribution.evaluation.needs import Available, missing_methods
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error, wilson


def reciprocal_ranks(top_index: Tensor, twin: Tensor) -> Tensor:
    """1 / rank of the twin in its test's list, 0 where it is not in it.

    Args:
        top_index: train rows, the first place first, [..., tests, k].
        twin: train row looked for, [tests].

    Returns:
        [..., tests], float64.
    """
    hits = top_index == twin[:, None]
    rank = hits.to(torch.uint8).argmax(-1) + 1
    return torch.where(hits.any(-1), 1 / rank.double(), 0.0)


@dataclass(frozen=True)
class Duplicates:
    """Metric `mrr`: mean reciprocal rank of the planted twin within the stored list; beyond its end counts 0. Metric
    `found` (k = 1): share of tests whose list begins with the twin.

    A twin of another label than what is explained speaks against it: a method with a sign has to list it among the
    worst, and there its rank is counted from the worst on. For a method with seeds: the mean over seeds of each test
    first, then mean and standard error over tests.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.duplicates import Duplicates
        >>> from twinlens.attribution.evaluation.instance_lists import InstanceLists
        >>> top = torch.tensor([[[7, 3], [1, 2]]])  # [seeds, tests, k]
        >>> lists = InstanceLists(torch.arange(2), top, torch.ones(1, 2, 2), top_k=2, twin=torch.tensor([3, 9]))
        >>> [(row.metric, row.value) for row in Duplicates().evaluate(lists)]  # rank 2, and not found
        [('mrr', 0.25), ('found', 0.0)]
    """

    requires: ClassVar[str] = "instance"

    def missing(self, available: Available) -> str:
        """Name what the run lacks, empty where nothing is missing."""
        if not available.instance:
            return missing_methods(available, "instance")
        if "twin" not in available.columns:
            return "data with planted near-duplicates (data=demo)"
        return "" if available.twins else "a planted near-duplicate among the explained examples (raise data.limit)"

    def evaluate(self, lists: InstanceLists) -> list[Result]:
        """Two results; `n` is the number of tests with a twin, `k` of `mrr` the length of the stored lists.

        Raises:
            UserError: if no test has a planted twin.
        """
        planted = torch.zeros(0) if lists.twin is None else lists.twin >= 0
        if lists.twin is None or not bool(planted.any()):
            raise UserError(
                "evaluation=duplicates found no planted near-duplicate in the test split; expected data with plants, "
                "or limits that keep a pair: use data=demo, raise data.limit or leave duplicates out."
            )
        of_seeds = reciprocal_ranks(lists.end_of_twin[:, planted], lists.twin[planted])
        ranks, first = of_seeds.mean(0), (of_seeds == 1).double().mean(0)
        stderr = float(ranks.std() / len(ranks) ** 0.5) if len(ranks) > 1 else None
        share, error = mean_and_error(first)
        low, high = wilson(share, len(first))
        return [
            Result("mrr", float(ranks.mean()), stderr, n=len(ranks), k=lists.top_k, better="higher", samples=ranks),
            Result("found", share, error, n=len(first), k=1, better="higher", low=low, high=high, samples=first),
        ]
