"""Stored neuron lists of a split, as the bridges read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import TextPositions

PAPER = "Yu, Atanasova, Augenstein 2024 (arXiv 2404.18655)"


@dataclass(frozen=True)
class NeuronLists:
    """The best neurons of every example of a split, best first.

    Attributes:
        layer, unit: address of each neuron, [examples, r], int32; −1 where a list is shorter.
        score: [examples, r], float32.
        n_layers, n_neurons: of the model; neurons per layer.

    Raises:
        ValueError: if the three are not of one shape.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.neuron_lists import NeuronLists
        >>> layer, unit = torch.tensor([[0, 1], [1, -1]]), torch.tensor([[5, 2], [7, -1]])  # the second list is shorter
        >>> lists = NeuronLists(layer, unit, torch.tensor([[0.4, 0.1], [0.3, 0.0]]), n_layers=2, n_neurons=8)
        >>> lists.addresses(2)
        tensor([[ 5, 10],
                [15, -1]])
    """

    layer: Tensor
    unit: Tensor
    score: Tensor
    n_layers: int
    n_neurons: int

    def __post_init__(self) -> None:
        if not self.layer.shape == self.unit.shape == self.score.shape or self.layer.dim() != 2:
            shapes = ", ".join(str(tuple(t.shape)) for t in (self.layer, self.unit, self.score))
            raise ValueError(f"layer, unit and score are {shapes}; expected one shape [examples, r].")

    def __len__(self) -> int:
        return len(self.layer)

    def rows(self, start: int, stop: int) -> NeuronLists:
        """A contiguous part of the examples."""
        part = slice(start, stop)
        return NeuronLists(self.layer[part], self.unit[part], self.score[part], self.n_layers, self.n_neurons)

    def addresses(self, length: int) -> Tensor:
        """layer · n_neurons + unit of the first `length` entries, [examples, min(length, r)], int64; −1: none."""
        layer, unit = self.layer[:, :length].long(), self.unit[:, :length].long()
        return torch.where(layer >= 0, layer * self.n_neurons + unit, -1)


def list_length(name: str, value: int) -> int:
    """The length of a list, as given.

    Args:
        name: of the setting, for the message.
        value: entries.

    Raises:
        UserError: a length below 1.
    """
    if value < 1:
        raise UserError(f"{name} of a bridge is {value}; expected at least 1: leave it out or name a length.")
    return value


def text_positions(value: str) -> TextPositions:
    """Where the neurons of train texts are scored, as given.

    Raises:
        UserError: neither `all` nor `last`.
    """
    if value == "all" or value == "last":
        return value  # type: ignore[return-value]
    raise UserError(f"positions={value}; expected all (every token that counts) or last: write one of them.")
