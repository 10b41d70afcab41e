"""Cost of every method: the time and memory that its scores took when they were computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.result import Result


@dataclass(frozen=True)
class Cost:
    """Metrics `seconds`, `processor_seconds` and `memory_mib` of every method's pass over the explained split.

    As measured when the pass was computed, which may have been in an earlier run: by the clock, of all threads of the
    process, and the highest memory above what it held before. What several methods share (predictions, a train split's
    lists) counts for none, or for the one that came first. Of a method that draws, the mean over its seeds. The group
    is the method's kind. A pass that a kill has cut in two has no figures.

    Example:
        >>> from twinlens.attribution.evaluation.cost import Cost
        >>> rows = Cost().evaluate({"ig": [(2.0, 3.5, 2**20), (4.0, 3.5, 2**21)]}, {"ig": "neuron"})
        >>> [(row.metric, row.method, row.value) for row in rows]
        [('seconds', 'ig', 3.0), ('processor_seconds', 'ig', 3.5), ('memory_mib', 'ig', 1.5)]
    """

    requires: ClassVar[str] = "cost"

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        some = available.instance or available.neuron or available.ia_neurons
        return "" if some else "at least one method (e.g. method=gradsim)"

    def evaluate(
        self, took: Mapping[str, Sequence[tuple[float, float, float]]], kinds: Mapping[str, str]
    ) -> list[Result]:
        """Three results for each method.

        Args:
            took: method → seconds, processor seconds and bytes of each of its seeds.
            kinds: of the methods.
        """
        found = []
        for name, of_seeds in took.items():
            means = [sum(column) / len(of_seeds) for column in zip(*of_seeds, strict=True)]
            for metric, value in zip(("seconds", "processor_seconds", "memory_mib"), means, strict=True):
                scaled = value / 2**20 if metric == "memory_mib" else value
                found.append(Result(metric, scaled, method=name, group=kinds[name], better="lower"))
        return found
