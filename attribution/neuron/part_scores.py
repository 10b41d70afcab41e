"""Log-probability increase of whole heads, heads at a token, and layers as a configured method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.method import UnitKind
from twinlens.attribution.neuron.explained import Explained, score_parts
from twinlens.attribution.neuron.logprob_increase import head_increases, head_position_increases, layer_increases
from twinlens.attribution.neuron.neuron_score import PAPER, SIGNED, UNITS, outputs_of
from twinlens.attribution.neuron.protocol import ResidualMethod
from twinlens.attribution.neuron.ranking import ATTENTION, FFN, NeuronScores
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel, told_of

Granularity = Literal["heads", "head_positions", "layers"]


class _PartScore(ResidualMethod, ABC):
    """What the granularities share; see `HeadScore` and `LayerScore`."""

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    granularity: Granularity
    sign = SIGNED
    unit = UNITS["logprob_increase"]

    def __init__(self, mode: Mode = "corrected", top_k: int = 100) -> None:
        self.mode: Mode = mode
        self.top_k = top_k

    def describe(self, model: ResidualModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        return {
            "method": "log-probability increase",
            "source": f"{PAPER}, Eq. 13",
            "granularity": self.granularity,
            "mode": self.mode,
            "top_k": self.top_k,
            "unit": self.unit,
            "sign": self.sign,
            **told_of(model),
        }

    def attribute(self, model: ResidualModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best parts of every example, ties to attention, then to the lower layer, unit and position.

        Raises:
            UserError: a budget that does not hold one example.
        """

        def score(part: Explained, room: int) -> NeuronScores:
            return self.best(model, part, room)

        attention = self.granularity != "layers"
        return score_parts(model, batch, self.mode, attention, memory_budget, self.top_k, score)

    @abstractmethod
    def best(self, model: ResidualModel, part: Explained, room: int) -> NeuronScores:
        """The parts of some examples in their order."""

    def bytes_per_example(self, model: ResidualModel, tokens: int) -> int:
        """States, and what one layer's parts add with the distributions they are added to."""
        attention = self.granularity != "layers"
        parts = 1 if not attention else model.n_heads * (tokens if self.granularity == "head_positions" else 1)
        layers = 1 if attention else model.n_layers
        fixed = 4 * layers * (3 * outputs_of(model) + (4 + 2 * parts) * model.hidden_size)
        return model.bytes_per_example(tokens, attention) + fixed + 16 * outputs_of(model)

    def operations(self, model: ResidualModel, tokens: int) -> float:
        """A distribution of every part."""
        parts = {"layers": 2, "heads": model.n_heads, "head_positions": model.n_heads * tokens}[self.granularity]
        return 4.0 * model.n_layers * parts * outputs_of(model) * model.hidden_size


class HeadScore(_PartScore):
    """Heads: lp(x_l + head) − lp(x_l), the whole head or what it takes from each token.

    Args:
        by_position: each head at every token instead of the whole.
        mode, top_k: see `twinlens.attribution.neuron.neuron_score.NeuronScore`.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.part_scores import HeadScore
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> found = HeadScore(top_k=2).attribute(model, batch, BUDGET)
        >>> found.layer.tolist(), found.unit.tolist()  # layers and heads of each example, best first
        ([[1, 0], [1, 0]], [[0, 1], [1, 1]])
        >>> found.score.round(decimals=2)  # nats
        tensor([[ 0.5100, -0.1000],
                [-0.0500, -0.0900]])
    """

    unit_kind: ClassVar[UnitKind] = "head"

    def __init__(
        self,
        by_position: bool = False,
        mode: Mode = "corrected",
        top_k: int = 100,
    ) -> None:
        super().__init__(mode, top_k)
        self.by_position = by_position
        self.granularity = "head_positions" if by_position else "heads"

    def best(self, model: ResidualModel, part: Explained, room: int) -> NeuronScores:
        """Heads of some examples."""
        if self.by_position:
            scores = head_position_increases(model, part.states, part.readout, room)
        else:
            scores = head_increases(model, part.states, part.readout, room)[..., None]
        ordered, place = _ordered(scores, self.top_k)
        n_heads, n_positions = scores.shape[2:]
        position = place % n_positions if self.by_position else torch.full_like(place, -1)
        return NeuronScores(
            layer=(place // (n_heads * n_positions)).int(),
            unit=(place // n_positions % n_heads).int(),
            position=position.int(),
            score=ordered,
            site=torch.full_like(place, ATTENTION, dtype=torch.int8),
        )


class LayerScore(_PartScore):
    """Layers: what the attention's and the MLP's whole outputs add, biases included.

    Of one example all of them sum to lp(h^L) − lp(h^0). An entry has a site and a layer, and no unit (−1).

    Args:
        mode, top_k: see `twinlens.attribution.neuron.neuron_score.NeuronScore`.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.part_scores import LayerScore
        >>> from twinlens.attribution.neuron.ranking import SITES
        >>> found = LayerScore(top_k=4).attribute(ExampleResidualModel(), example_batch(), BUDGET)
        >>> [f"{SITES[site]} {layer}" for site, layer in zip(found.site[0].tolist(), found.layer[0].tolist())]
        ['ffn 1', 'attn 1', 'ffn 0', 'attn 0']
        >>> found.score[0].round(decimals=2)  # nats
        tensor([ 0.8400,  0.4600,  0.0400, -0.9600])
    """

    unit_kind: ClassVar[UnitKind] = "layer"
    granularity = "layers"

    def best(self, model: ResidualModel, part: Explained, room: int) -> NeuronScores:
        """Layers of some examples."""
        return ranked_layers(*layer_increases(part.states, part.readout, room), self.top_k)


def ranked_layers(attention: Tensor, mlp: Tensor, top_k: int) -> NeuronScores:
    """Layers best first; ties go to attention, then to the lower layer.

    Args:
        attention, mlp: scores of the layers' outputs of either site, [batch, layers] each.
        top_k: entries of each list.
    """
    ordered, place = _ordered(torch.stack([attention, mlp], 1), top_k)
    n_layers = attention.shape[1]
    none = torch.full_like(place, -1, dtype=torch.int32)
    site = torch.where(place < n_layers, ATTENTION, FFN).to(torch.int8)
    return NeuronScores((place % n_layers).int(), none, ordered, position=none, site=site)


def _ordered(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The highest of [batch, …] and their places in the flattened rest, [batch, top_k] each."""
    ordered, place = scores.float().flatten(1).sort(dim=1, descending=True, stable=True)
    return ordered[:, :top_k], place[:, :top_k]
