"""What a neuron method is: from a model and a batch to the best neurons of each example."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from attribution.base import Batch, ResidualModel
from attribution.neuron.ranking import NeuronScores

EngineKind = Literal["last_token", "residual"]
UnitKind = Literal["neuron", "head", "layer"]
Role = Literal["value", "query"]


@runtime_checkable
class NeuronMethod(Protocol):
    """A configured method.

    Attributes:
        engine: what it is given as `model`: `last_token`, a `NeuronModel`; `residual`, a `ResidualModel`.
        unit_kind: what its entries stand for.
        role: whether these carry the target themselves (value) or activate what does (query).
        top_k: length of the stored lists.
        reads_text: whether `attribute` needs the tokens; False: the batch holds `index` alone.
    """

    engine: ClassVar[EngineKind]
    unit_kind: ClassVar[UnitKind]
    role: ClassVar[Role]
    top_k: int
    reads_text: bool

    def describe(self, model: Any) -> dict[str, object]:
        """Resolved settings, sign and unit, for `method.yaml`; refuses models the method does not serve."""

    def attribute(self, model: Any, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example; the result does not depend on `memory_budget` (bytes)."""


@runtime_checkable
class ResidualMethod(NeuronMethod, Protocol):
    """A method over the residual stream, which can say what it needs."""

    def bytes_per_example(self, model: ResidualModel, tokens: int) -> int:
        """Memory that one example of so many tokens takes at least, beside the weights."""

    def operations(self, model: ResidualModel, tokens: int) -> float:
        """Floating-point operations of one example beside its forward, roughly."""
