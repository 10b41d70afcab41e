"""The curvature of an influence function beyond the head: layer by layer over whole gradients, or over stored rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Self

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.datainf import datainf_bytes
from twinlens.attribution.gradients.fisher import MOST_DAMPING, LayerBasis, absolute_damping
from twinlens.attribution.gradients.projected_curvature import BLOCK_BYTES, choose_ggn_solver, ggn_bytes
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.over_layers import Losses, OverLayers, RowSolve
from twinlens.attribution.protocols import LinearLayer

KRONECKER = ("kfac", "ekfac")
Preconditioner = Literal["ekfac", "none"]
"""What steps over whole layers are taken in: EK-FAC's inverse, or each layer's own λ alone."""
FEWEST_PASSES = 2
"""Of a solve over whole layers: a step, and the product that checks it."""
FINEST_TOLERANCE = 1e-5
"""Relative residual of solves over whole layers, whose vectors are float32, at the least."""
Damping = float | Literal["auto"]
"""λ relative to the mean eigenvalue, or the word for one that the run chooses."""


class CurvedLayers(OverLayers):
    """A method over the gradients of layers with a curvature.

    Attributes:
        curvature, solver, damping, fisher, cg_tolerance, cg_max_steps, preconditioner: see
            `twinlens.attribution.instance.influence.Influence`. Before a method with `auto` scores anything, the run
            replaces it by one with a number (`settled`): that of a grid whose scores agree best with models trained on
            random halves, on examples that are not explained.
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
    cg_tolerance: float
    cg_max_steps: int
    preconditioner: Preconditioner
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
        elif not 0 < self.damping <= MOST_DAMPING:
            why = "leaves nothing of the curvature" if self.damping > 0 else "leaves the curvature singular"
            raise UserError(
                f"damping={self.damping:g} {why}; expected a number above 0 and at most {MOST_DAMPING:g}, relative to "
                "the mean eigenvalue: use damping=0.1."
            )

    def check_curvature(self) -> None:
        """Refuse a curvature or a solver that these gradients cannot have.

        Raises:
            UserError: naming what to use.
        """
        if self.curvature in (*KRONECKER, "datainf", "identity") and self.solver not in ("auto", "direct"):
            raise UserError(
                f"solver={self.solver} cannot serve curvature={self.curvature}, whose inverse is known in closed form; "
                "expected solver=auto or solver=direct: leave solver out or use curvature=ggn."
            )
        if not (0 < self.cg_tolerance < 1 and self.cg_max_steps >= 1):
            what = "accepts zeros as a solution" if self.cg_tolerance >= 1 else "can accept no solution"
            raise UserError(
                f"cg_tolerance={self.cg_tolerance:g} with cg_max_steps={self.cg_max_steps} {what}; expected a "
                "tolerance between 0 and 1 and at least one step: use cg_tolerance=1e-6 cg_max_steps=1000."
            )
        if self.reads == "layers" and (self.curvature == "hessian" or (self.iterates and self.solver != "cg")):
            otherwise = (
                ", or a solve that never writes it down: use curvature=ekfac or curvature=kfac, solver=cg with "
                "cg_tolerance=1e-3 (method=influence_cg)"
                if self.iterates
                else ": use curvature=ekfac or curvature=kfac"
            )
            raise UserError(
                f"curvature={self.curvature} of whole layers (params={self.params}, projection=none) would have as "
                f"many rows as they have parameters; expected one that is built layer by layer{otherwise}, or "
                "projection=random for curvature=ggn."
            )
        if self.iterates and self.cg_tolerance < FINEST_TOLERANCE:
            raise UserError(
                f"cg_tolerance={self.cg_tolerance:g} is finer than float32 vectors over whole layers "
                f"(params={self.params}) can show; expected at least {FINEST_TOLERANCE:g}: set cg_tolerance=1e-3."
            )
        if self.iterates and self.cg_max_steps < FEWEST_PASSES:
            raise UserError(
                f"cg_max_steps={self.cg_max_steps} leaves no step over whole layers (params={self.params}), as the "
                f"last pass checks what is found; expected at least {FEWEST_PASSES}, as a rule ten and more: set "
                "cg_max_steps=300."
            )
        if self.reads == "rows" and self.curvature == "hessian":
            raise UserError(
                "curvature=hessian is of the head alone, but projected gradients of layers are asked for; expected "
                "curvature=ggn, ekfac, kfac, datainf or identity: set one of them."
            )
        if self.reads != "rows" and self.curvature == "datainf":
            raise UserError(
                "curvature=datainf is solved over stored rows of projected gradients; expected a projection: set "
                "params=all projection=random."
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
            held = datainf_bytes(sizes, budget)
            return RowSolve(held, held + BLOCK_BYTES, 4.0 * n_train * sum(size**2 for size in sizes))
        return kronecker_solve(sides, n_train, rank) if self.curvature in KRONECKER else RowSolve()

    @property
    def needs_factors(self) -> bool:
        """Whether there is a curvature, which EK-FAC at least preconditions; see `OverLayers.needs_factors`."""
        if self.curvature not in ("identity", "ggn", *KRONECKER):
            raise UserError(
                f"curvature={self.curvature} is not built layer by layer from whole gradients; expected identity, "
                "kfac, ekfac or ggn: use one of these or set projection=random."
            )
        return self.curvature != "identity"

    @property
    def iterates(self) -> bool:
        """Whether the curvature of all layers together is solved with by steps; see `OverLayers.iterates`."""
        return self.reads == "layers" and self.curvature == "ggn"

    def inverses(self, layers: Sequence[LinearLayer], bases: Sequence[LayerBasis] | None) -> list[Inverse]:
        """See `OverLayers.inverses`."""
        if bases is None:
            return [Inverse(None, self.relative_damping)] * len(layers)
        return [
            Inverse(basis, absolute_damping(basis, self.relative_damping, layer.name, layer.routed))
            for basis, layer in zip(bases, layers, strict=True)
        ]

    def describe_layers(self, layers: Sequence[LinearLayer], inverses: Sequence[Inverse]) -> dict[str, object]:
        """See `OverLayers.describe_layers`."""
        means = [None if inverse.basis is None else float(inverse.basis.eigenvalues.mean()) for inverse in inverses]
        steps = {"preconditioner": self.preconditioner, "cg_tolerance": self.cg_tolerance} if self.iterates else {}
        return {
            "curvature": self.curvature,
            "curvature_equals_ggn": self.iterates and self.fisher == "expectation",
            "fisher": None if means[0] is None else self.fisher,
            "solver": "cg" if self.iterates else "direct",
            **steps,
            "damping": self.damping,
            "damping_absolute": self.damping if means[0] is None else [inverse.damping for inverse in inverses],
            "mean_eigenvalue": None if means[0] is None else means,
            **super().describe_layers(layers, inverses),
        }


def kronecker_solve(sides: Sequence[tuple[int, int]], n_train: int, rank: int) -> RowSolve:
    """What (EK-)FAC over stored rows takes; arguments as of `OverLayers.solve_rows`."""
    held = 8 * sum(d_out**2 + d_in**2 + d_out * d_in for d_out, d_in in sides)
    operations = 8.0 * n_train * (1 + rank) * sum(a * b * (a + b) for a, b in sides)
    return RowSolve(held, held + BLOCK_BYTES, operations)
