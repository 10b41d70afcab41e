"""Stored neuron lists of texts that have one at every token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from twinlens.attribution.bridge.neuron_lists import NeuronLists


@dataclass(frozen=True)
class TextNeuronLists(NeuronLists):
    """The best neurons at every token of texts, the tokens of a text next to each other; its length counts texts.

    Attributes:
        layer, unit, score: of each token, [tokens, r].
        text: row of the text that each token is of, rising, [tokens].
        n_texts: texts; one may have no token.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.text_neuron_lists import TextNeuronLists
        >>> unit = torch.tensor([[5], [2], [7]])
        >>> lists = TextNeuronLists(torch.zeros_like(unit), unit, torch.ones(3, 1), 1, 8, torch.tensor([0, 0, 1]), 2)
        >>> len(lists), lists.tokens_of(0, 1)  # the first text has the first two tokens
        (2, (0, 2))
        >>> lists.highest(torch.tensor([[1.0, 2.0, 4.0]]), 0, 2, nothing=0.0)
        tensor([[2., 4.]])
    """

    text: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    n_texts: int = 0

    def __len__(self) -> int:
        return self.n_texts

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(torch.bincount(self.text, minlength=1).max())

    def tokens_of(self, start: int, stop: int) -> tuple[int, int]:
        """The tokens of texts start … stop − 1, as rows of the lists."""
        ends = torch.searchsorted(self.text, torch.tensor([start, stop], device=self.text.device))
        return int(ends[0]), int(ends[1])

    def highest(self, values: Tensor, start: int, stop: int, nothing: float) -> Tensor:
        """Of values of the tokens of texts start … stop − 1, [tests, tokens], each text's highest, [tests, texts].

        Args:
            nothing: what a text without a token has.
        """
        first, last = self.tokens_of(start, stop)
        text = (self.text[first:last] - start).expand_as(values)
        found = values.new_full((len(values), stop - start), nothing)
        return found.scatter_reduce_(1, text, values, "amax", include_self=False)
