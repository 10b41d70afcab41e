"""Number of different train instances in all tests' top lists (Table 1 of Yu, Atanasova and Augenstein 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.evaluation.instance_lists import InstanceLists
from twinlens.attribution.evaluation.result import Result


def unique_instances(top_index: Tensor, top: int) -> int:
    """Number of different train rows among the first `top` entries of all lists `top_index` [tests, k]."""
    return len(torch.unique(top_index[:, :top]))


@dataclass(frozen=True)
class Uniqueness:
    """Metric `unique_instances`: number of train instances that the method ever puts forward.

    A small number means that the same few instances explain everything; neither direction is better as such. For a
    method with seeds: the mean over seeds, with the standard error over seeds (tests share instances, so they are no
    independent draws of a count).

    Attributes:
        top: entries of each list that count; the paper's 10.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.instance_lists import InstanceLists
        >>> from twinlens.attribution.evaluation.uniqueness import Uniqueness
        >>> top = torch.tensor([[[7, 3], [7, 2], [7, 3]]])  # [seeds, tests, k]
        >>> lists = InstanceLists(torch.arange(3), top, torch.ones(1, 3, 2), top_k=2)
        >>> [(row.metric, row.value) for row in Uniqueness(top=2).evaluate(lists)]
        [('unique_instances', 3.0)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    top: int = 10
    requires: ClassVar[str] = "instance"

    def evaluate(self, lists: InstanceLists) -> list[Result]:
        """One result; `n` is the number of tests."""
        counts = torch.tensor([unique_instances(run, self.top) for run in lists.top_index], dtype=torch.float64)
        stderr = float(counts.std() / len(counts) ** 0.5) if len(counts) > 1 else None
        return [Result("unique_instances", float(counts.mean()), stderr, n=len(lists.index), k=self.top)]
