"""The curvature of an influence function beyond the head: layer by layer over whole gradients, or over stored rows."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.fisher import LayerBasis, absolute_damping
from twinlens.attribution.gradients.projected_curvature import BLOCK_BYTES, choose_ggn_solver, ggn_bytes
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.over_layers import Losses, OverLayers, RowSolve
from twinlens.attribution.protocols import LinearLayer

KRONECKER = ("kfac", "ekfac")


class CurvedLayers(OverLayers):
    """A method over the gradients of layers with a curvature.

    Attributes:
        curvature, solver, damping, fisher: see `twinlens.attribution.instance.influence.Influence`.

    Example:
        >>> from twinlens.attribution.instance.influence import Influence
        >>> from twinlens.attribution.instance.layer_curvature import CurvedLayers
        >>> method: CurvedLayers = Influence(curvature="ekfac", params="all")
        >>> method.reads, method.needs_factors, method.curvature_losses
        ('layers', True, 'expectation')
        >>> Influence(curvature="ekfac", params="all", fisher="empirical").curvature_losses
        'loss'
    """

    curvature: str
    solver: str
    damping: float

    @property
    def curvature_losses(self) -> Losses | None:
        """The GGN, and the exact Fisher matrix of (EK-)FAC, are expectations; others are made of the train losses."""
        if self.curvature == "identity":
            return None
        exact = self.curvature == "ggn" or (self.curvature in KRONECKER and self.fisher == "expectation")
        return "expectation" if exact else "loss"

    def solve_rows(self, sides: Sequence[tuple[int, int]], n_train: int, rank: int, budget: int) -> RowSolve:
        """See `OverLayers.solve_rows`."""
        sizes = [d_out * d_in for d_out, d_in in sides]
        numbers, n_rows = sum(sizes), n_train * rank
        if self.curvature == "ggn":
            solver = choose_ggn_solver(numbers, n_rows, self.solver, budget)
            side = numbers if solver == "direct" else n_rows
            operations = 2.0 * n_rows * numbers * side + side**3 / 3 + 2.0 * n_train * side**2
            return RowSolve(8 * side**2, ggn_bytes(numbers, n_rows)[solver], operations, solver)
        if self.curvature == "datainf":
            held = 8 * sum(size**2 for size in sizes)
            return RowSolve(held, held + BLOCK_BYTES, 4.0 * n_train * sum(size**2 for size in sizes))
        if self.curvature in KRONECKER:
            held = 8 * sum(d_out**2 + d_in**2 + d_out * d_in for d_out, d_in in sides)
            operations = 8.0 * n_train * (1 + rank) * sum(a * b * (a + b) for a, b in sides)
            return RowSolve(held, held + BLOCK_BYTES, operations)
        return RowSolve()

    @property
    def needs_factors(self) -> bool:
        """Whether there is a curvature; see `OverLayers.needs_factors`."""
        if self.curvature not in ("identity", *KRONECKER):
            raise UserError(
                f"curvature={self.curvature} is not built layer by layer from whole gradients; expected identity, kfac "
                "or ekfac: use one of these or set projection=random."
            )
        return self.curvature != "identity"

    def inverses(self, layers: Sequence[LinearLayer], bases: Sequence[LayerBasis] | None) -> list[Inverse]:
        """See `OverLayers.inverses`."""
        if bases is None:
            return [Inverse(None, self.damping)] * len(layers)
        return [
            Inverse(basis, absolute_damping(basis, self.damping, layer.name))
            for basis, layer in zip(bases, layers, strict=True)
        ]

    def describe_layers(self, layers: Sequence[LinearLayer], inverses: Sequence[Inverse]) -> dict[str, object]:
        """See `OverLayers.describe_layers`."""
        means = [None if inverse.basis is None else float(inverse.basis.eigenvalues.mean()) for inverse in inverses]
        return {
            "curvature": self.curvature,
            "curvature_equals_ggn": False,
            "fisher": None if means[0] is None else self.fisher,
            "solver": "direct",
            "damping": self.damping,
            "damping_absolute": self.damping if means[0] is None else [inverse.damping for inverse in inverses],
            "mean_eigenvalue": None if means[0] is None else means,
            **super().describe_layers(layers, inverses),
        }
