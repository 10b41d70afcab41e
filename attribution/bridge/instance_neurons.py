"""IA-Neurons: from the most influential train instances to their best neurons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.bridge.neuron_lists import PAPER, NeuronLists, list_length, text_positions
from twinlens.attribution.method import Source, TextPositions
from twinlens.attribution.neuron.protocol import NeuronLens
from twinlens.attribution.neuron.ranking import NeuronScores


@dataclass(frozen=True)
class InstanceNeurons(NeuronLens):
    """IA-Neurons: the top-1 neuron of each of the most influential train examples, in their order.

    Attributes:
        source: name of the instance method of the run that ranks the train examples.
        neurons: name of the neuron method of the run whose train lists give the neurons.
        top_k: train examples whose neuron is taken, and length of the lists.
        dedup: False keeps a neuron as often as it comes, as the paper does; True keeps its first occurrence and goes
            on down the train examples until there are `top_k` different neurons or no train examples are left.
        positions: where the neurons of a language model's train texts are scored: `all`, at every token that counts,
            of which the best neuron counts; `last`, at their last token alone. Classes and choices are read at their
            answer token.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
        >>> from twinlens.attribution.bridge.neuron_lists import NeuronLists
        >>> train = NeuronLists(torch.tensor([[0], [1], [1]]), torch.tensor([[5], [2], [2]]), torch.ones(3, 1), 2, 8)
        >>> method = InstanceNeurons(source="gradsim", top_k=3)
        >>> found = method.compose(torch.tensor([[2, 0, 1]]), torch.tensor([[0.9, 0.4, 0.1]]), train)
        >>> found.layer.tolist(), found.unit.tolist()  # the best neuron of train rows 2, 0 and 1
        ([[1, 0, 1]], [[2, 5, 2]])
        >>> found.score  # the score of the train row
        tensor([[0.9000, 0.4000, 0.1000]])
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    reads: ClassVar[str] = "instances"
    explains = "instance"
    from_instances: ClassVar[bool] = True

    source: str
    neurons: str = "ig"
    top_k: int = 100
    dedup: bool = False
    positions: TextPositions = "all"

    def __post_init__(self) -> None:
        list_length("top_k", self.top_k)
        text_positions(self.positions)

    @property
    def adds_up(self) -> bool:
        """As far as the instances' scores do, which are asked themselves."""
        return True

    @property
    def sources(self) -> tuple[Source, ...]:
        """The instance method that ranks the train examples, and the neuron method whose train lists are read."""
        return (
            Source("source", self.source, "instance", lengths={"top_k": self.top_k}),
            Source("neurons", self.neurons, "neuron", of_train=True, positions=self.positions),
        )

    @property
    def sign(self) -> str:
        """Whatever the instances' scores say."""
        return f"that of {self.source}: the score is the train example's, not the neuron's"

    @property
    def unit(self) -> str:
        """Unit of the instances' scores."""
        return f"that of {self.source}"

    def describe(self) -> dict[str, object]:
        """Settings, sign and unit."""
        return {
            "method": "IA-Neurons: top-1 neurons of the most influential train examples",
            "paper": f"{PAPER}, Sec. 3.2",
            "source": self.source,
            "neurons": self.neurons,
            "top_k": self.top_k,
            "dedup": self.dedup,
            "positions": self.positions,
            "sign": self.sign,
            "unit": self.unit,
        }

    def compose(self, top_index: Tensor, top_score: Tensor, train: NeuronLists) -> NeuronScores:
        """The lists of a batch of tests.

        A train example without neurons is passed over, and so is one with score −∞, which is no influential one.

        Args:
            top_index: train rows, the most influential first, [tests, k]; −1 is passed over.
            top_score: their scores, [tests, k].
            train: neuron lists of the whole train split.

        Returns:
            [tests, min(top_k, k)], −1 (and score 0) at the end of shorter lists; the score is the train example's.
        """
        width = top_index.shape[1] if self.dedup else min(self.top_k, top_index.shape[1])
        index, score = top_index[:, :width].long(), top_score[:, :width].float()
        first = torch.cat([train.addresses(1), torch.full((len(train), 1), -1, device=train.layer.device)], 1)[:, 0]
        address = torch.where(index >= 0, first[index.clamp(min=0)], -1)
        kept = (address >= 0) & (score > -math.inf)
        if self.dedup:
            kept &= first_occurrence(torch.where(kept, address, -1))
        order = (~kept).int().argsort(dim=1, stable=True)[:, : self.top_k]
        kept, address, score = kept.gather(1, order), address.gather(1, order), score.gather(1, order)
        layer = address.div(train.n_neurons, rounding_mode="floor")
        unit = address.remainder(train.n_neurons)
        return NeuronScores(layer.where(kept, -1).int(), unit.where(kept, -1).int(), score.where(kept, 0))


def first_occurrence(values: Tensor) -> Tensor:
    """Where a value stands for the first time in its row, [rows, k].

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.instance_neurons import first_occurrence
        >>> first_occurrence(torch.tensor([[4, 7, 4]]))
        tensor([[ True,  True, False]])
    """
    ordered, position = values.sort(dim=1, stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(new).scatter_(1, position, new)
