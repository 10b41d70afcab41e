"""Protocol of neuron methods: from a model and a batch to the best neurons of each example."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.method import Lens, Method, MethodKind, Role, UnitKind
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.ranking import NeuronScores, TokenScores
from twinlens.attribution.protocols import Batch, ModelKind
from twinlens.attribution.residual_protocol import ResidualModel

EngineKind = Literal["last_token", "residual"]


class NeuronLens(Method):
    """A method whose scores are of neurons, heads or layers.

    Attributes:
        unit_kind: what its entries stand for.
        role: whether its entries carry the target themselves (value) or activate what does (query).
        from_instances: whether it leads from train instances to neurons instead of reading the model.
        ranks: which neurons it ranks: `ffn`, `attn` or `both`.

    Example:
        >>> from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
        >>> from twinlens.attribution.neuron.protocol import NeuronLens
        >>> method: NeuronLens = InstanceNeurons(source="gradsim")
        >>> method.from_instances, method.kind, method.names_neurons, method.ranks
        (True, 'ia_neurons', True, 'ffn')
    """

    lens = "neuron"
    explains: Lens | None = "neuron"
    unit_kind: ClassVar[UnitKind] = "neuron"
    role: ClassVar[Role] = "value"
    from_instances: ClassVar[bool] = False

    @property
    def names_neurons(self) -> bool:
        """Whether its entries are neurons."""
        return self.unit_kind == "neuron"

    @property
    def kind(self) -> MethodKind | None:
        """A method of neurons, or one from instances to neurons."""
        if not self.names_neurons:
            return None
        return "ia_neurons" if self.from_instances else "neuron"

    @property
    def ranks(self) -> str:
        """FFN neurons, unless it says otherwise."""
        return "ffn"


class NeuronMethod(NeuronLens):
    """A configured method that reads the model; extend it.

    Attributes:
        engine: what it is given as `model`: `last_token`, a `NeuronModel`; `residual`, a `ResidualModel`.
        reads_text: whether `attribute` needs the tokens; False: the batch holds `index` alone, unless the model has
            experts, whose neurons an example has or not.
        reads_keys: whether it reads what neurons and values read of the residual stream, which not every model shows.

    Example:
        >>> from twinlens.attribution.neuron.ig import IntegratedGradients
        >>> from twinlens.attribution.neuron.protocol import NeuronMethod
        >>> method = IntegratedGradients(top_k=10)
        >>> isinstance(method, NeuronMethod), method.engine, method.unit_kind, method.role
        (True, 'last_token', 'neuron', 'value')
    """

    engine: ClassVar[EngineKind] = "last_token"
    reads_text: bool = True
    reads_keys: ClassVar[bool] = False

    @property
    def reads(self) -> str:
        """The model."""
        return "model"

    @property
    def reads_attention(self) -> bool:
        """Whether it is given attention weights and values, which not every model shows."""
        return self.engine == "residual" and (self.ranks != "ffn" or self.unit_kind == "head")

    def check_model(self, model: ModelKind) -> None:
        """Refuse a kind of model that the method does not serve, before anything is trained.

        Raises:
            UserError: naming what to use.
        """

    def describe(self, model: Any) -> dict[str, object]:
        """Resolved settings, sign and unit, for `method.yaml`; refuses models the method does not serve."""
        raise NotImplementedError

    def attribute(self, model: Any, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example; the result does not depend on `memory_budget` (bytes).

        What is explained stands in the batch (`twinlens.attribution.targets.target_of`).
        """
        raise NotImplementedError

    def token_scores(self, model: Any, batch: Batch, memory_budget: int) -> TokenScores:
        """Scores of every neuron for the log-probability of the batch's `target`, the next token, in nats; those of
        several tokens add up. Of methods that `adds_up` says so of."""
        raise NotImplementedError

    def need(self, sizes: EngineSizes) -> Need:
        """Memory of one example; the forward, unless the method says otherwise."""
        return Need(sizes.states, sizes.states)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float | None:
        """Floating-point operations of one example of so many tokens; None: the method does not say."""
        return None


class ResidualMethod(NeuronMethod):
    """A method over the residual stream: what it takes beside the states depends on the engine's own sizes.

    In multiple choice the other choices' scores are computed before, one sequence at a time if need be.

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

    engine: ClassVar[EngineKind] = "residual"

    def bytes_per_example(self, model: ResidualModel, tokens: int) -> int:
        """Memory that one example of so many tokens takes at least, beside the weights."""
        return model.bytes_per_example(tokens, True)

    def operations(self, model: ResidualModel, tokens: int) -> float | None:
        """Floating-point operations of one example beside its forward, roughly; None: the method does not say."""
        return None

    def need(self, sizes: EngineSizes) -> Need:
        """See `bytes_per_example`."""
        if sizes.residual is None:
            return super().need(sizes)
        each = partial(self.bytes_per_example, sizes.residual)
        return Need(each, each)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float | None:
        """The forward, in multiple choice those of the other choices, and `operations`."""
        own = None if sizes.residual is None else self.operations(sizes.residual, tokens)
        extra = sizes.sequences.read if sizes.sequences.read > 1 else 0
        return None if own is None else (1 + extra) * model.forward_operations(tokens) + own
