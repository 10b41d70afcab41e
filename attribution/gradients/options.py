"""Options of a method's gradients: the layers, the labels in the loss, the projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.projection import Projection, ProjectionKind

Reads = Literal["head", "checkpoints", "text", "neurons", "layers", "rows"]
"""What a method is given of each split: `HeadInputs` (cached head inputs and labels),
`CheckpointInputs` (the same under each kept checkpoint), `TextInputs`, `NeuronLists` of the bridge, the whole
gradients of linear layers as a backward finds them (`layers`), or stored rows of projected gradients (`rows`)."""
LabelSource = Literal["gold", "predicted"]
"""Whose label stands in the loss that is differentiated."""
HeadParameters = Literal["weight", "head"]
"""Which parameters of the head are differentiated: the weight matrices only, or the biases too."""

Per = Literal["example", "token"]
"""What a train row is: an example, or one token of a language model's training text."""


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
    def reads(self) -> Reads:
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
        if self.of_head and self.per == "token":
            raise UserError(
                f"per=token shares the gradients of layers among tokens, but params={self.params} is the head, which "
                "reads one token; expected layers of the model: set params=all."
            )
        if self.per == "token" and self.projection.kind == "none":
            raise UserError(
                "per=token keeps a row of every train token, but projection=none keeps no rows; expected small ones: "
                "set projection=random."
            )


class GradientSettings(Protocol):
    """A method's flat settings, see `GradientOptions` and `Projection`.

    Example:
        >>> from twinlens.attribution.gradients.options import GradientSettings
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> settings: GradientSettings = GradientSimilarity(params="all", projection="random")
        >>> settings.params, settings.projection, settings.projection_dim, settings.per
        ('all', 'random', 16, 'example')
    """

    @property
    def params(self) -> str:
        """See `GradientOptions`."""

    @property
    def labels(self) -> LabelSource:
        """See `GradientOptions`."""

    @property
    def projection(self) -> ProjectionKind:
        """Kind, see `Projection`."""

    @property
    def projection_dim(self) -> int:
        """Numbers per side, see `Projection`."""

    @property
    def projection_seed(self) -> int:
        """Of the random signs, see `Projection`."""

    @property
    def per(self) -> Per:
        """See `GradientOptions`."""


class OverLayers:
    """Base of methods over the gradients of any layers; such a method has `GradientSettings` besides.

    Example:
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> method = GradientSimilarity(params="all", projection="random")
        >>> method.reads, method.gradients.projection
        ('rows', Projection(kind='random', dim=16, seed=0))
    """

    @property
    def gradients(self: GradientSettings) -> GradientOptions:
        """The gradients that the method is about; a method checks them when it is made."""
        projection = Projection(self.projection, self.projection_dim, self.projection_seed)
        return GradientOptions(self.params, self.labels, projection, self.per)

    @property
    def reads(self) -> Reads:
        """Cached head inputs, whole gradients of layers, or stored rows of projected ones."""
        return self.gradients.reads  # type: ignore[misc]  # whoever inherits has the settings
