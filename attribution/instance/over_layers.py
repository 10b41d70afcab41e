"""Methods over the gradients of any layers: of the head, of whole layers as they pass by, or of stored rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from twinlens.attribution.gradients.fisher import Fisher, LayerBasis
from twinlens.attribution.gradients.options import GradientOptions, LabelSource, Per
from twinlens.attribution.gradients.projection import Projection, ProjectionKind
from twinlens.attribution.gradients.row_forms import Storage
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.protocol import InstanceMethod
from twinlens.attribution.protocols import LinearLayer

Losses = Literal["loss", "expectation"]
"""Whose gradients: of an example's loss, or (classes − 1 rows) those that the GGN of its scores is made of."""


@dataclass(frozen=True)
class RowSolve:
    """What a curvature over stored rows takes before any test is scored.

    Attributes:
        held: bytes that the scorer goes on holding.
        prepared: peak in bytes while it is made.
        operations: in float64.
        solver: where there is a choice.

    Example:
        >>> from twinlens.attribution.instance.influence import Influence
        >>> method = Influence(params="all", projection="random", projection_dim=2)
        >>> solve = method.solve_rows([(2, 2)], n_train=10, rank=1, budget=2**20)  # one layer, projected to 2 × 2
        >>> solve.solver, solve.held  # the factor of a matrix of 4 × 4 numbers
        ('direct', 128)
    """

    held: int = 0
    prepared: int = 0
    operations: float = 0.0
    solver: str = ""


class OverLayers(InstanceMethod):
    """What methods over the gradients of layers have in common, one without curvature unless it says otherwise.

    Attributes:
        params, labels, per: see `GradientOptions`.
        projection, projection_dim, projection_seed: see `Projection`.
        storage, storage_rank: see `twinlens.attribution.gradients.row_forms.Storage`.
        fisher: labels in the Fisher matrix, of a method that `needs_factors`.

    Example:
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> from twinlens.attribution.instance.over_layers import OverLayers
        >>> method: OverLayers = GradientSimilarity(params="all", projection="random")
        >>> method.params, method.projection, method.projection_dim, method.per
        ('all', 'random', 16, 'example')
        >>> method.reads, method.gradients.projection
        ('rows', Projection(kind='random', dim=16, seed=0))
    """

    params: str
    labels: LabelSource
    projection: ProjectionKind
    projection_dim: int
    projection_seed: int
    storage: Storage
    storage_rank: int
    per: Per
    fisher: Fisher

    @property
    def cosine(self) -> bool:
        """Whether both sides have unit length."""
        return False

    @property
    def adds_up(self) -> bool:
        """Gradients of sums are sums of gradients, of any layers that see all tokens."""
        return self.reads != "head"

    @property
    def gradients(self) -> GradientOptions:
        """Which gradients the method is about; a method checks them when it is made."""
        projection = Projection(self.projection, self.projection_dim, self.projection_seed)
        return GradientOptions(self.params, self.labels, projection, self.per, self.storage, self.storage_rank)

    @property
    def reads(self) -> str:
        """Cached head inputs, whole gradients of layers, or stored rows of projected ones."""
        return self.gradients.reads

    # -- stored rows ----------------------------------------------------------------------------------------------

    @property
    def curvature_losses(self) -> Losses | None:
        """Whose gradients the curvature is made of; None: there is no curvature."""
        return None

    def solve_rows(self, sides: Sequence[tuple[int, int]], n_train: int, rank: int, budget: int) -> RowSolve:
        """What the curvature takes, from shapes alone.

        Args:
            sides: numbers of each projected layer's outputs and inputs.
            n_train: examples.
            rank: rows of an example in the curvature.
            budget: bytes.

        Raises:
            UserError: no solver fits the budget.
        """
        return RowSolve()

    # -- whole gradients ------------------------------------------------------------------------------------------

    @property
    def needs_factors(self) -> bool:
        """Whether the curvature is made of factors layer by layer.

        Raises:
            UserError: a curvature that is not built so.
        """
        return False

    @property
    def iterates(self) -> bool:
        """Whether test gradients are solved for by steps, each of which is a pass over the train split.

        The layers' inverses are then the preconditioner, and their λ that of the whole.
        """
        return False

    def inverses(self, layers: Sequence[LinearLayer], bases: Sequence[LayerBasis] | None) -> list[Inverse]:
        """Each layer's (H + λ)⁻¹.

        Args:
            bases: H of each layer; None: there is no curvature.

        Raises:
            UserError: a layer's Fisher block vanishes.
        """
        return [Inverse()] * len(layers)

    def describe_layers(self, layers: Sequence[LinearLayer], inverses: Sequence[Inverse]) -> dict[str, object]:
        """Settings, absolute dampings layer by layer, sign and unit, for `method.yaml`."""
        options = self.gradients
        return {
            "params": options.params,
            "layers": [layer.name for layer in layers],
            "n_parameters": sum(layer.n_parameters for layer in layers),
            "labels": options.labels,
            "projection": "none",
            "dtype": "float32",
            "sign": self.sign,
            "unit": self.unit,
        }
