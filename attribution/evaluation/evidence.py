"""Ranks of the documents that tell what a query asks, where the data say which ones they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.instance_lists import InstanceLists
from twinlens.attribution.evaluation.marks import Marks
from twinlens.attribution.evaluation.needs import Available, missing_methods
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error, wilson


@dataclass(frozen=True)
class Evidence:
    """Places of a query's own documents in its list, over all queries and over those of each type (`group`).

    Metric `evidence_mrr`: mean of 1 / rank of the first of them, 0 where the list holds none (`k`, its length).
    `evidence_first`: share of queries whose list begins with one. `evidence_recall`: share of a query's documents that
    are among the first `k`. `evidence_several`: share of queries with at least `several` among the first `k`, or all of
    them where there are fewer. For a method with seeds: the mean over seeds of each query first.

    Attributes:
        first: k, length of the beginning of a list that people read.
        several: documents among the first k.

    Raises:
        UserError: no place, or more documents than places.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.evidence import Evidence
        >>> from twinlens.attribution.evaluation.instance_lists import InstanceLists
        >>> from twinlens.attribution.evaluation.marks import Marks
        >>> marks = Marks(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1]), ("verbatim", "reworded"))
        >>> top = torch.tensor([[[2, 0, 1, 3], [0, 3, 2, 1]]])  # [seeds, tests, k]
        >>> lists = InstanceLists(torch.arange(2), top, torch.ones(1, 2, 4), top_k=4, marks=marks)
        >>> found = Evidence(first=2, several=2).evaluate(lists)
        >>> [(row.metric, row.group, row.value) for row in found][2:5]
        [('evidence_recall', '', 0.75), ('evidence_several', '', 0.5), ('evidence_mrr', 'verbatim', 1.0)]
    """

    requires: ClassVar[str] = "instance"

    first: int = 10
    several: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.several <= self.first:
            raise UserError(
                f"evaluation.evidence.first={self.first} with several={self.several}, expected 1 to as many documents "
                "as places: write first=10 several=3."
            )

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        if not available.instance:
            return missing_methods(available, "instance")
        if "evidence" not in available.columns:
            return "documents and queries that are marked (data=texts data.evidence=COLUMN)"
        return ""

    def require_length(self, name: str, top_k: int) -> None:
        """Refuse a method whose lists are shorter than the beginning that is looked at.

        Raises:
            UserError: naming the method and both numbers.
        """
        if top_k < self.first:
            raise UserError(
                f"evaluation.evidence looks at the first {self.first} documents of a list, but method.{name}.top_k="
                f"{top_k} keeps fewer: raise method.{name}.top_k, or lower evaluation.evidence.first."
            )

    def evaluate(self, lists: InstanceLists) -> list[Result]:
        """Four results, and four for each type of queries where there are several.

        Raises:
            UserError: no query has a document that tells its answer.
        """
        marks = lists.marks
        asked = torch.zeros(0, dtype=torch.bool) if marks is None else marks.test >= 0
        if marks is None or not bool(asked.any()):
            raise UserError(
                "evaluation=evidence found no query with a document that tells its answer; expected limits that keep "
                "a pair: raise data.limit, or leave evidence out."
            )
        kinds = [kind for kind in dict.fromkeys(marks.kind) if kind]
        groups = {"": asked}
        if len(kinds) > 1:
            groups |= {kind: asked & torch.tensor([own == kind for own in marks.kind]) for kind in kinds}
        found = []
        for group, chosen in groups.items():
            if bool(chosen.any()):
                found += self._results(lists, marks, chosen, group)
        return found

    def _results(self, lists: InstanceLists, marks: Marks, chosen: Tensor, group: str) -> list[Result]:
        test = marks.test[chosen]
        hits = marks.train[lists.top_index[:, chosen]] == test[:, None]  # [seeds, tests, k]
        rank = hits.to(torch.uint8).argmax(-1) + 1
        reciprocal = torch.where(hits.any(-1), 1 / rank.double(), 0.0).mean(0)
        counts = hits[..., : self.first].sum(-1)
        own = (marks.train == test[:, None]).sum(-1)
        shares = {
            "evidence_first": hits[..., 0].double().mean(0),
            "evidence_several": (counts >= own.clamp(max=self.several)).double().mean(0),
        }
        recall = (counts / own.double()).mean(0)
        said: dict[str, Any] = {"group": group, "n": len(test), "better": "higher"}

        def proportion(metric: str, k: int, variant: str = "") -> Result:
            value, error = mean_and_error(shares[metric])
            low, high = wilson(value, len(test))
            values = shares[metric]
            return Result(metric, value, error, k=k, low=low, high=high, samples=values, variant=variant, **said)

        several = "" if self.several == 3 else f"several={self.several}"
        return [
            Result("evidence_mrr", *mean_and_error(reciprocal), k=lists.top_k, samples=reciprocal, **said),
            proportion("evidence_first", 1),
            Result("evidence_recall", *mean_and_error(recall), k=self.first, samples=recall, **said),
            proportion("evidence_several", self.first, several),
        ]
