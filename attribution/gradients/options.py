"""Options of a method's gradients: the layers, the labels in the loss, the projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.projection import Projection

LabelSource = Literal["gold", "predicted"]
"""Whose label stands in the loss that is differentiated."""
HeadParameters = Literal["weight", "head"]
"""Which parameters of the head are differentiated: the weight matrices only, or the biases too."""

Per = Literal["example", "token", "module"]
"""What a train row is: an example, or one token of a language model's training text; with `module` an example, whose
scores are shared out among the layers."""


@dataclass(frozen=True)
class GradientOptions:
    """The gradients of one method.

    Attributes:
        params: `weight` (the head's weight matrices), `head` (its biases too), `all` (every linear layer of the model),
            or glob patterns over the names of layers with commas between them.
        labels: labels in the losses.
        projection: how layers' gradients are made small before they are kept.
        per: what a train row is.

    Example:
        >>> from twinlens.attribution.gradients.options import GradientOptions
        >>> from twinlens.attribution.gradients.projection import Projection
        >>> GradientOptions("head", "gold", Projection()).reads
        'head'
        >>> GradientOptions("all", "gold", Projection()).reads
        'layers'
        >>> GradientOptions("all", "gold", Projection("random", dim=8)).reads
        'rows'
    """

    params: str
    labels: LabelSource
    projection: Projection
    per: Per = "example"

    @property
    def reads(self) -> str:
        """The head alone is served from cached head inputs, exactly."""
        if self.of_head:
            return "head"
        return "layers" if self.projection.kind == "none" else "rows"

    @property
    def of_head(self) -> bool:
        """Whether only the head's parameters are differentiated."""
        return self.params in ("weight", "head")

    @property
    def head_parameters(self) -> HeadParameters:
        """`params` where they are the head's."""
        assert self.params == "weight" or self.params == "head"
        return self.params  # type: ignore[return-value]  # narrowed by the line above

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UserError: a projection or tokens for the head alone, or tokens without stored rows.
        """
        if self.of_head and self.projection.kind != "none":
            raise UserError(
                f"projection={self.projection.kind} makes gradients of whole layers small, but params={self.params} is "
                "the head alone, whose gradients are exact from cached inputs; expected projection=none there: set "
                "params=all or leave the projection out."
            )
        if self.of_head and self.per != "example":
            shared = "among tokens" if self.per == "token" else "layer by layer"
            raise UserError(
                f"per={self.per} shares the gradients of layers {shared}, but params={self.params} is the head, which "
                "reads one token; expected layers of the model: set params=all."
            )
        if self.per != "example" and self.projection.kind == "none":
            rows = "a row of every train token" if self.per == "token" else "rows to share scores out"
            raise UserError(
                f"per={self.per} keeps {rows}, but projection=none keeps no rows; expected small ones: "
                "set projection=random."
            )
