"""Options of a method's gradients: the layers, the labels in the loss, the projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.projection import Projection
from twinlens.attribution.gradients.row_forms import RowForm, Storage
from twinlens.attribution.gradients.storage import form_of

LabelSource = Literal["gold", "predicted"]
"""Whose label stands in the loss that is differentiated."""
HeadParameters = Literal["weight", "head"]
"""Which parameters of the head are differentiated: the weight matrices only, or the biases too."""

Per = Literal["example", "token", "module"]
"""What a train row is: an example, or one token of a language model's training text; with `module` an example, whose
scores are shared out among the layers."""

KRONECKER_PAPERS = (
    "martens2015kfac if curvature=kfac|ekfac",
    "eschenhagen2023kfac if curvature=kfac|ekfac",
    "george2018ekfac if curvature=ekfac",
)
"""Of methods with a setting `curvature`, see `Method.papers`."""
PROJECTION_PAPERS = ("park2023trak if projection=random", "choe2024logra if projection=random")
"""Of methods with a setting `projection`."""


@dataclass(frozen=True)
class GradientOptions:
    """The gradients of one method.

    Attributes:
        params: `weight` (the head's weight matrices), `head` (its biases too), `all` (every linear layer of the model),
            or glob patterns over the names of layers with commas between them.
        labels: labels in the losses.
        projection: how layers' gradients are made small before they are kept.
        per: what a train row is.
        storage: the form in which rows are kept.
        storage_rank: singular triplets of a layer where that form is `factored`.

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
    storage: Storage = "dense"
    storage_rank: int = 3

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

    @property
    def form(self) -> RowForm:
        """The form of stored rows."""
        return form_of(self.storage, self.storage_rank)

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UserError: a projection, tokens or a storage for the head alone, tokens or a storage without stored rows,
                or a rank that keeps nothing.
        """
        if self.storage_rank < 1:
            raise UserError(
                f"storage_rank={self.storage_rank} keeps nothing of a layer's gradient; expected at least 1: use "
                "storage_rank=3."
            )
        if self.storage != "dense" and self.reads != "rows":
            why = (
                f"params={self.params} is the head, whose gradients are taken from cached inputs"
                if self.of_head
                else f"params={self.params} with projection=none takes whole gradients as they pass by"
            )
            raise UserError(
                f"storage={self.storage} makes stored rows of gradients small, but {why}, so that none are stored; "
                "expected rows: set params=all projection=random, or leave the storage out."
            )
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
