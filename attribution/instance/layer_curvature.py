"""The curvature of an influence function beyond the head: layer by layer over whole gradients, or over stored rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Self

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.fisher import LayerBasis, absolute_damping
from twinlens.attribution.gradients.projected_curvature import BLOCK_BYTES, choose_ggn_solver, ggn_bytes
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.over_layers import Losses, OverLayers, RowSolve
from twinlens.attribution.protocols import LinearLayer

KRONECKER = ("kfac", "ekfac")
Damping = float | Literal["auto"]
"""λ relative to the mean eigenvalue, or the word for one that the run chooses."""


class CurvedLayers(OverLayers):
    """A method over the gradients of layers with a curvature.

    Attributes:
        curvature, solver, damping, fisher: see `twinlens.attribution.instance.influence.Influence`. Before a method
            with `auto` scores anything, the run replaces it by one with a number (`settled`): that of a grid whose
            scores agree best with models trained on random halves, on examples that are not explained.
        damping_chosen: how that number was chosen, in words; empty where it was given.

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
    damping: Damping
    damping_chosen: str = ""

    def check_damping(self) -> None:
        """Refuse a damping that is none.

        Raises:
            UserError: naming what to use.
        """
        if isinstance(self.damping, str):
            if self.curvature == "identity" or self.solver == "lissa":
                raise UserError(
                    f"damping=auto cannot be chosen for {'solver=lissa' if self.solver == 'lissa' else ''}"
                    f"{'curvature=identity' if self.curvature == 'identity' else ''}, whose damping is no multiple of "
                    "the curvature's mean eigenvalue; expected a number: write damping=0.1."
                )
        elif not self.damping > 0:
            raise UserError(
                f"damping={self.damping:g} leaves the curvature singular; expected a number above 0, relative to the "
                "mean eigenvalue: use damping=0.1."
            )

    @property
    def relative_damping(self) -> float:
        """`damping` as a number."""
        assert not isinstance(self.damping, str), "the run chooses a number before anything is scored"
        return self.damping

    def settled(self: Self, damping: float, chosen: str) -> Self:
        """The method with a number in place of `auto`, and how it was chosen."""
        return replace(self, damping=damping, damping_chosen=chosen)  # type: ignore[type-var]

    @property
    def choices(self) -> Mapping[str, str]:
        """See `Method.choices`."""
        return {"damping_auto": self.damping_chosen} if self.damping_chosen else {}

    def _absolute_damping(self, trace: float, n_parameters: int) -> float:
        damping = self.relative_damping * trace / n_parameters
        if not damping > 0:
            raise UserError(
                f"The curvature of the train loss has trace {trace:.4g}, so that relative damping cannot make it "
                "invertible; expected a positive trace: train less (trainer.max_epochs), use curvature=ggn or gradsim."
            )
        return damping

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
            return [Inverse(None, self.relative_damping)] * len(layers)
        return [
            Inverse(basis, absolute_damping(basis, self.relative_damping, layer.name, layer.spread is not None))
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
