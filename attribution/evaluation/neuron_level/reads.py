"""Reads of every sentence that evaluations of the second paper ask for: those of one run compute each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel

ValueSite = Literal["ffn", "attn"]
Longest = dict[tuple[ValueSite, Mode], int]


@dataclass(frozen=True)
class Reads:
    """What is computed once for every sentence, whichever evaluations ask for it.

    Attributes:
        states: whether the residual stream is read.
        attention: whether attention weights and value vectors are read with it.
        values: (site, mode) → length of the longest list of value neurons; site `ffn` or `attn`.
        queries: (attention value neurons that are asked, mode) of every scoring of query neurons.
        original: whether metrics of the model as it is are read.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.reads import Reads
        >>> one = Reads(states=True, values={("ffn", "corrected"): 100})
        >>> other = Reads(states=True, values={("ffn", "corrected"): 300, ("attn", "corrected"): 200}, original=True)
        >>> one.joined(other).values  # one search for the longest list serves both
        {('ffn', 'corrected'): 300, ('attn', 'corrected'): 200}
    """

    states: bool = False
    attention: bool = False
    values: Mapping[tuple[ValueSite, Mode], int] = field(default_factory=dict)
    queries: frozenset[tuple[int, Mode]] = frozenset()
    original: bool = False

    def joined(self, other: Reads) -> Reads:
        """What serves both."""
        kinds: Longest = dict.fromkeys([*self.values, *other.values], 0)
        return Reads(
            self.states or other.states,
            self.attention or other.attention,
            {kind: max(self.values.get(kind, 0), other.values.get(kind, 0)) for kind in kinds},
            self.queries | other.queries,
            self.original or other.original,
        )


def reads_of(evaluations: Iterable[Any], model: ResidualModel) -> Reads:
    """What several evaluations read together; one that does not say (`reads`) shares nothing."""
    said = (evaluation.reads(model) for evaluation in evaluations if hasattr(evaluation, "reads"))
    return reduce(Reads.joined, said, Reads())
