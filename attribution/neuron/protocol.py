"""Protocol of neuron methods: from a model and a batch to the best neurons of each example."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from twinlens.attribution.neuron.ranking import NeuronScores
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel

EngineKind = Literal["last_token", "residual"]
UnitKind = Literal["neuron", "head", "layer"]
Role = Literal["value", "query"]


@runtime_checkable
class NeuronMethod(Protocol):
    """A configured method.

    A method may also say what it is given as `model` and what its entries are, see `engine_kind`, `unit_kind`, `role`.

    Attributes:
        top_k: length of the stored lists.
        reads_text: whether `attribute` needs the tokens; False: the batch holds `index` alone.

    Example:
        >>> from twinlens.attribution.neuron.ig import IntegratedGradients
        >>> from twinlens.attribution.neuron.protocol import NeuronMethod, engine_kind, role, unit_kind
        >>> method = IntegratedGradients(top_k=10)
        >>> isinstance(method, NeuronMethod), engine_kind(method), unit_kind(method), role(method)
        (True, 'last_token', 'neuron', 'value')
    """

    top_k: int
    reads_text: bool

    def describe(self, model: Any) -> dict[str, object]:
        """Resolved settings, sign and unit, for `method.yaml`; refuses models the method does not serve."""

    def attribute(self, model: Any, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example; the result does not depend on `memory_budget` (bytes)."""


@runtime_checkable
class ResidualMethod(NeuronMethod, Protocol):
    """A method over the residual stream, which can say what it needs.

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel
        >>> from twinlens.attribution.neuron.neuron_score import NeuronScore
        >>> from twinlens.attribution.neuron.protocol import ResidualMethod
        >>> method = NeuronScore("logprob_increase")
        >>> isinstance(method, ResidualMethod), method.engine
        (True, 'residual')
        >>> method.bytes_per_example(ExampleResidualModel(), tokens=4) > 0
        True
    """

    engine: ClassVar[EngineKind]

    def bytes_per_example(self, model: ResidualModel, tokens: int) -> int:
        """Memory that one example of so many tokens takes at least, beside the weights."""

    def operations(self, model: ResidualModel, tokens: int) -> float:
        """Floating-point operations of one example beside its forward, roughly."""


def engine_kind(method: Any) -> EngineKind:
    """Kind of `model` that a method gets: `last_token`, a `NeuronModel` (default); `residual`, a `ResidualModel`."""
    return getattr(method, "engine", "last_token")


def unit_kind(method: Any) -> UnitKind:
    """Kind of unit that a method's entries stand for; neurons unless it says otherwise."""
    return getattr(method, "unit_kind", "neuron")


def role(method: Any) -> Role:
    """Whether a method's entries carry the target themselves (value, default) or activate what does (query)."""
    return getattr(method, "role", "value")
