"""The texts and tokens that activate neurons most, kept while a corpus streams by.

Of every text a neuron keeps its strongest token alone, so that a text that repeats itself does not fill a list. Both
ends are kept: the highest positive and the lowest negative activations. Nothing grows with the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strongest:
    """One end of some neurons' activations over a corpus, the strongest first.

    Attributes:
        text: rows of the corpus, int64 [units, k]; −1 where a list is shorter.
        position: of the token in its text, int32 [units, k]; −1 where a list is shorter.
        activation: [units, k], float32; 0 where a list is shorter.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.strongest_texts import StrongestTexts
        >>> best = StrongestTexts(k=2, positive=True)
        >>> best.update(torch.tensor([[0.3], [-0.1]]), torch.tensor([[4], [0]]), torch.tensor([7, 8]))
        >>> found = best.result()  # one neuron, two texts; the second gives it no positive activation
        >>> found.text.tolist(), found.position.tolist()
        ([[7, -1]], [[4, -1]])
    """

    text: Tensor
    position: Tensor
    activation: Tensor


class StrongestTexts:
    """Running `k` strongest texts of every neuron, the same in whatever pieces and order the texts come.

    Of equal activations the text with the lower row comes first.

    Args:
        k: texts kept of each neuron.
        positive: whether the highest activations above 0 are kept, or the lowest below 0.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.strongest_texts import StrongestTexts
        >>> best = StrongestTexts(k=2, positive=True)
        >>> best.update(torch.tensor([[0.3, 0.9], [0.5, 0.2]]), torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> best.update(torch.tensor([[0.5, 0.1]]), torch.ones(1, 2), torch.tensor([2]))  # a further text
        >>> best.result().text.tolist()
        [[1, 2], [0, 1]]
    """

    def __init__(self, k: int, positive: bool) -> None:
        self.k = k
        self.positive = positive
        self._held: tuple[Tensor, Tensor, Tensor] | None = None

    def update(self, activation: Tensor, position: Tensor, text: Tensor) -> None:
        """Take in some texts, none of which has come before.

        Args:
            activation: of every text's strongest token, [texts, units].
            position: of that token, [texts, units].
            text: rows of the corpus, [texts].
        """
        rows = text.long()[:, None].expand_as(activation)
        self._take(activation.float().T, position.int().T, rows.T)

    def merge(self, other: Strongest) -> None:
        """Take in what another part of the corpus has left."""
        self._take(other.activation, other.position, other.text)

    def result(self) -> Strongest:
        """The lists, as long as there are texts, at most `k`."""
        assert self._held is not None, "no text has come"
        activation, position, text = self._held
        kept = text >= 0
        return Strongest(text, position.where(kept, -1), activation.where(kept, 0))

    def _take(self, activation: Tensor, position: Tensor, text: Tensor) -> None:
        """All [units, texts]."""
        text = text.where(activation > 0 if self.positive else activation < 0, -1)
        parts = (activation, position, text)
        if self._held is not None:
            parts = tuple(torch.cat(pair, 1) for pair in zip(self._held, parts, strict=True))  # type: ignore[assignment]
        for order in (_by_text, self._by_activation):
            place = order(*parts)
            parts = tuple(part.gather(1, place) for part in parts)  # type: ignore[assignment]
        self._held = tuple(part[:, : self.k].contiguous() for part in parts)  # type: ignore[assignment]

    def _by_activation(self, activation: Tensor, position: Tensor, text: Tensor) -> Tensor:
        signed = activation if self.positive else -activation
        return signed.masked_fill(text < 0, -torch.inf).argsort(dim=1, descending=True, stable=True)


def _by_text(activation: Tensor, position: Tensor, text: Tensor) -> Tensor:
    return text.argsort(dim=1, stable=True)


def strongest_tokens(activation: Tensor, counts: Tensor, place: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """Every text's strongest token for each neuron, the first of equal ones.

    Args:
        activation: [texts, tokens, units].
        counts: which tokens are looked at, bool [texts, tokens].
        place: position of each token in its text, [texts, tokens].
        positive: whether the highest activations are sought, or the lowest.

    Returns:
        activation [texts, units], float32, and position [texts, units]; 0 and −1 where no token is looked at.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.strongest_texts import strongest_tokens
        >>> activation = torch.tensor([[[9.0], [0.2], [0.7]]])  # one text, its first token is not looked at
        >>> strongest_tokens(activation, torch.tensor([[False, True, True]]), torch.arange(3)[None], positive=True)
        (tensor([[0.7000]]), tensor([[2]], dtype=torch.int32))
    """
    signed = (activation if positive else -activation).float().masked_fill(~counts[..., None], -torch.inf)
    column = signed.argmax(1)  # of equal ones the first
    found = signed.gather(1, column[:, None])[:, 0]
    there = found > -torch.inf
    value = (found if positive else -found).where(there, 0)
    return value, place.gather(1, column).int().where(there, -1)
