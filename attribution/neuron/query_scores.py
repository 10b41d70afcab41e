"""Second paper's query side as configured methods: the layers and FFN neurons that activate the best value neurons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Role, UnitKind
from twinlens.attribution.neuron.bounded_search import TopUnits
from twinlens.attribution.neuron.explained import Explained, score_parts
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import PAPER, NeuronScore
from twinlens.attribution.neuron.part_scores import ranked_layers
from twinlens.attribution.neuron.protocol import ResidualMethod
from twinlens.attribution.neuron.query import ValueNeurons, query_bytes, query_layers, query_neurons
from twinlens.attribution.neuron.ranking import NeuronScores, rank_neurons, with_coefficient
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.neuron.static_scores import best_neurons
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel, told_of

ValueSite = Literal["ffn", "attn"]
SIGN = "positive: what it adds to the residual stream pushes the value neurons' coefficients the way they went"


class _QueryScore(ResidualMethod, ABC):
    """What both granularities share; see `QueryLayers` and `QueryNeurons`."""

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    role: ClassVar[Role] = "query"
    granularity: str
    sign = SIGN
    unit = "nats: share of the value neurons' log-probability increase"

    def __init__(
        self,
        site: ValueSite,
        n_values: int,
        mode: Mode = "corrected",
        top_k: int = 100,
    ) -> None:
        if site not in ("ffn", "attn"):
            raise UserError(f"unknown site '{site}' of value neurons; expected ffn or attn.")
        if n_values < 1:
            raise UserError(f"n_values={n_values} asks for no value neuron; expected at least 1: raise it.")
        self.site = site
        self.n_values = n_values
        self.mode: Mode = mode
        self.top_k = top_k

    def describe(self, model: ResidualModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        return {
            "method": f"query {self.granularity} of the {self.n_values} best {self.site} value neurons",
            "source": f"{PAPER}, Sec. 3.4",
            "granularity": self.granularity,
            "site_of_values": self.site,
            "n_values": self.n_values,
            "mode": self.mode,
            "top_k": self.top_k,
            "unit": self.unit,
            "sign": self.sign,
            **told_of(model),
        }

    def attribute(self, model: ResidualModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best of every example.

        Raises:
            UserError: a budget that does not hold one example, or `notebook` with shared key heads.
        """

        def score(part: Explained, room: int) -> NeuronScores:
            units = attention_units if self.site == "attn" else ffn_units
            found = best_neurons(part.readout, units(model, part.states), "logprob_increase", self.n_values, room)
            return self.best(model, part, found, room)

        return score_parts(model, batch, self.mode, self.site == "attn", memory_budget, self.top_k, score)

    @abstractmethod
    def best(self, model: ResidualModel, part: Explained, values: TopUnits, room: int) -> NeuronScores:
        """Query side of some examples."""

    def bytes_per_example(self, model: ResidualModel, tokens: int) -> int:
        """The value neurons' search, or their keys beside the states."""
        search = NeuronScore("logprob_increase", self.site, top_k=self.n_values).bytes_per_example(model, tokens)
        keys = query_bytes(model, tokens, self.n_values, model.hidden_size)
        return max(search, model.bytes_per_example(tokens, self.site == "attn") + keys)

    def operations(self, model: ResidualModel, tokens: int) -> float:
        """The value neurons' search and their keys' products with every contribution."""
        search = NeuronScore("logprob_increase", self.site, top_k=self.n_values).operations(model, tokens)
        products = model.n_neurons if self.granularity == "neurons" else 2
        return search + 4.0 * self.n_values * model.n_layers * products * model.hidden_size


class QueryLayers(_QueryScore):
    """Layers' attention and MLP outputs by their share in activating the value neurons.

    What the embedding and the biases inside the keys contribute belongs to no layer and is not listed.

    Args:
        site: of the value neurons.
        n_values: best value neurons by log-probability increase that are asked.
        mode, top_k: see `NeuronScore`; `notebook` also leaves centring and
            biases out of the keys and divides by the plain sum, see `twinlens.attribution.neuron.query`.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.query_scores import QueryLayers
        >>> method = QueryLayers(site="ffn", n_values=2, top_k=2)
        >>> found = method.attribute(ExampleResidualModel(), example_batch(), BUDGET)
        >>> found.site.tolist(), found.layer.tolist()  # site 1: attention, 0: MLP
        ([[1, 1], [0, 1]], [[0, 1], [1, 0]])
        >>> found.score.round(decimals=2)  # nats of the value neurons' increase
        tensor([[ 0.4800,  0.1100],
                [ 0.0000, -0.1200]])
    """

    unit_kind: ClassVar[UnitKind] = "layer"
    granularity = "layers"

    def best(self, model: ResidualModel, part: Explained, values: TopUnits, room: int) -> NeuronScores:
        """Query layers of some examples."""
        neurons = ValueNeurons.of(values, part.states)
        found = query_layers(model, part.tokens, neurons, room, self.mode)
        return ranked_layers(found.attention, found.mlp, self.top_k)


class QueryNeurons(_QueryScore):
    """FFN neurons below the value neurons by their share in activating these, at the value neurons' own tokens.

    Args:
        site, n_values, mode, top_k: see `QueryLayers`.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.query_scores import QueryNeurons
        >>> method = QueryNeurons(site="ffn", n_values=6, top_k=2)
        >>> found = method.attribute(ExampleResidualModel(), example_batch(), BUDGET)
        >>> found.layer[1].tolist(), found.unit[1].tolist()  # of the second text, below its value neurons
        ([0, 0], [4, 2])
        >>> found.score[1].round(decimals=2)  # nats of the value neurons' increase
        tensor([0.2800, 0.0100])
    """

    granularity = "neurons"

    def best(self, model: ResidualModel, part: Explained, values: TopUnits, room: int) -> NeuronScores:
        """Query neurons of some examples."""
        neurons = ValueNeurons.of(values, part.states)
        scores = query_neurons(model, part.tokens, neurons, room, self.mode)
        return rank_neurons(scores, self.top_k, present=with_coefficient(model.experts, scores))
