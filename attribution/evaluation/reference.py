"""Activations of a sample of examples, which switched-off neurons get in the place of zero."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from twinlens.attribution.counter_random import uniform


@dataclass(frozen=True)
class Reference:
    """Activations of a sample of examples at the answer position, what `mean` and `resample` draw from.

    Attributes:
        index: row of each sampled example in its split, ascending, int64 [sample].
        activation: [sample, sequences, layers, neurons].
        of_explained: whether the sample was drawn from the explained split, so that an example may meet itself.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.reference import Reference
        >>> reference = Reference(torch.tensor([4, 9]), torch.ones(2, 1, 3, 5), of_explained=True)  # rows 4 and 9
        >>> reference.mean.shape
        torch.Size([1, 3, 5])
        >>> reference.donors(torch.tensor([4, 9]), seed=0)  # each takes the other's activations, never its own
        tensor([1, 0])
    """

    index: Tensor
    activation: Tensor
    of_explained: bool

    @cached_property
    def mean(self) -> Tensor:
        """Mean activation over examples and their sequences, [1, layers, neurons]."""
        return self.activation.mean((0, 1), dtype=torch.float64).to(self.activation.dtype)[None]

    def donors(self, index: Tensor, seed: int) -> Tensor:
        """Number in the sample of another example for each of the given ones, [batch].

        A function of (seed, example) alone, uniform over the sample without the example itself.

        Args:
            index: row of each explained example, [batch].
        """
        own = torch.full_like(index, len(self.index))
        if self.of_explained:
            place = torch.searchsorted(self.index, index).clamp(max=len(self.index) - 1)
            own = torch.where(self.index[place] == index, place, own)
        others = len(self.index) - (own < len(self.index)).long()
        drawn = (uniform(seed, index, torch.zeros(1, dtype=torch.int64))[:, 0].double() * others).long()
        return drawn + (drawn >= own).long()
