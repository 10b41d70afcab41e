"""What a neuron method is: from a model and a batch to the best neurons of each example."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attribution.base import Batch, NeuronModel
from attribution.neuron.ranking import NeuronScores


@runtime_checkable
class NeuronMethod(Protocol):
    """A configured method.

    Attributes:
        top_k: length of the stored lists.
        reads_text: whether `attribute` needs the tokens; False: the batch holds `index` alone.
    """

    top_k: int
    reads_text: bool

    def describe(self, model: NeuronModel) -> dict[str, object]:
        """Resolved settings, sign and unit, for `method.yaml`; refuses models the method does not serve."""

    def attribute(self, model: NeuronModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example; the result does not depend on `memory_budget` (bytes)."""
