"""Methods that hold neurons against what switched-off ones become: 0, their mean, or their value in another example."""

from __future__ import annotations

import copy
from typing import ClassVar, TypeVar

from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.edits import Intervention, replacement_of
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.neuron.protocol import NeuronMethod
from twinlens.attribution.protocols import Batch

Self = TypeVar("Self", bound="Replacing")


class Replacing(NeuronMethod):
    """A method that is told what a neuron becomes; extend it.

    Args:
        intervention: what a neuron becomes: `zero`; its `mean` over a sample of examples at the answer token; or
            (`resample`) its value there in another example of the sample.
        site: of its lists.
        reference_size: examples of the sample, drawn from the split that is scored.
        reference_seed: draws the sample and each example's partner in `resample`.
        top_k: neurons kept per example.

    Attributes:
        option: what the method is called in configurations.

    Raises:
        UserError: a sample too small to draw from, or of attention neurons, whose values none is taken of.

    Example:
        >>> from twinlens.attribution.neuron.ablation import Ablation
        >>> from twinlens.attribution.neuron.replacing import Replacing
        >>> methods: list[Replacing] = [Ablation(), Ablation("mean", reference_size=8)]
        >>> [(method.reads_reference, method.told) for method in methods]
        [(False, {}), (True, {'reference_size': 8, 'reference_seed': 0})]
    """

    option: ClassVar[str]

    def __init__(
        self, intervention: Intervention, site: str, reference_size: int, reference_seed: int, top_k: int
    ) -> None:
        if site != "ffn" and intervention != "zero":
            others = "are none" if site == "attn" else "are not all of these"
            raise UserError(
                f"method.{self.option}.intervention={intervention} replaces activations of FFN neurons, and "
                f"site={site} {others}; expected zeros there: set method.{self.option}.intervention=zero or site=ffn."
            )
        if reference_size < 2:
            raise UserError(
                f"method.{self.option}.reference_size={reference_size} leaves no other example to draw from; expected "
                "at least 2: raise it."
            )
        self.intervention = intervention
        self.reference_size = reference_size
        self.reference_seed = reference_seed
        self.top_k = top_k
        self.reference: Reference | None = None

    @property
    def reads_reference(self) -> bool:
        """Whether it has to be given a sample of activations before it scores."""
        return self.intervention != "zero"

    def with_reference(self: Self, reference: Reference) -> Self:
        """The method with a sample of the scored split's activations."""
        found = copy.copy(self)
        found.reference = reference
        return found

    @property
    def told(self) -> dict[str, object]:
        """The sample's settings for method.yaml, where there is one."""
        drawn: dict[str, object] = {"reference_size": self.reference_size, "reference_seed": self.reference_seed}
        return drawn if self.reads_reference else {}

    def replacement(self, activation: Tensor, batch: Batch) -> Tensor:
        """What each FFN neuron becomes, broadcastable to `activation` [sequences, layers, neurons] and of its type."""
        return replacement_of(self.intervention, self.reference, activation, batch["index"], self.reference_seed)
