"""Inverse curvatures in the space of stored rows: identity, GGN and (EK-)FAC, all in float64; DataInf: `datainf`.

The rows of `GradientRows.curvature_rows` are gradients whose outer products add up to the curvature: the GGN's own
(classes − 1 per example) or those of the train losses, for the empirical Fisher matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.fisher import LayerBasis, absolute_damping, eigenbasis, solve
from twinlens.attribution.gradients.layout import RowLayout
from twinlens.attribution.gradients.linear_solve import factorised, solve_factored
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.memory_amounts import bytes_in_words

BLOCK_BYTES = 2**28
"""Of rows in float64 at a time; larger blocks are no faster."""


class IdentityInverse:
    """1/λ.

    Args:
        damping: λ, absolute.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.projected_curvature import IdentityInverse
        >>> IdentityInverse(damping=0.5).apply([torch.tensor([[1.0, -2.0]])])
        [tensor([[ 2., -4.]])]
    """

    bytes_held = 0

    def __init__(self, damping: float) -> None:
        self.damping = damping
        self.description: dict[str, object] = {"damping_absolute": damping}

    def apply(self, groups: list[Tensor]) -> list[Tensor]:
        """See `Inverse`."""
        return [group / self.damping for group in groups]


def ggn_bytes(n_numbers: int, n_rows: int) -> dict[str, int]:
    """Bytes of the exact solves: matrix and factor of D × D numbers, or of R × R rows, and blocks of rows."""
    block = min(BLOCK_BYTES, 16 * n_numbers * n_rows)
    return {"direct": 16 * n_numbers**2 + block, "dual": 16 * n_rows**2 + 2 * block}


def choose_ggn_solver(n_numbers: int, n_rows: int, solver: str, budget: int) -> str:
    """The cheaper of `direct` and `dual` that fits the budget, or the one that is asked for.

    Raises:
        UserError: neither fits, or the solver does not serve stored rows.
    """
    needs = ggn_bytes(n_numbers, n_rows)
    if solver not in ("auto", *needs):
        raise UserError(
            f"solver={solver} iterates over the head's curvature, which stored gradients do not have; expected "
            "solver=auto, direct or dual: set one of them."
        )
    permitted = needs if solver == "auto" else {solver: needs[solver]}
    fitting = [name for name, bytes_needed in permitted.items() if bytes_needed <= budget]
    if not fitting:
        said = ", ".join(f"{name} needs {bytes_in_words(size)}" for name, size in needs.items())
        raise UserError(
            f"curvature=ggn with solver={solver} does not fit the memory budget of {bytes_in_words(budget)}: {said} "
            f"for {n_numbers} projected numbers and {n_rows} rows; expected one within it: lower "
            "method.<name>.projection_dim, raise memory_budget or use curvature=ekfac."
        )
    return min(fitting, key=lambda name: n_numbers if name == "direct" else n_rows)


def mean_square(fisher: GradientRows) -> float:
    """Trace of the curvature: summed squares of its rows over the number of examples."""
    return float(fisher.squared_norms().sum()) / len(fisher)


def require_positive(trace: float) -> None:
    """Refuse a curvature that relative damping cannot make invertible.

    Raises:
        UserError: its trace is not above 0.
    """
    if not trace > 0:
        raise UserError(
            f"The curvature of the train loss has trace {trace:.4g} in the projected space, so that relative damping "
            "cannot make it invertible; expected a positive trace: train less (trainer.max_epochs) or use gradsim."
        )


class GGNInverse:
    """(H + λ)⁻¹ with H = 1/n Σ r rᵀ over all layers together, exact in the projected space.

    `direct` factorises H; `dual` uses (H + λ)⁻¹ = 1/λ [I − Gᵀ(G Gᵀ + nλ)⁻¹G] with the rows G.

    Args:
        fisher: the rows r.
        damping: λ relative to the mean eigenvalue of H.
        solver: `auto`, `direct` or `dual`.
        memory_budget: bytes.

    Raises:
        UserError: see `choose_ggn_solver`; or H vanishes.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.projected_curvature import GGNInverse
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> rows = GradientRows(row_layout(["score"], [(1, 2)]), (torch.tensor([[2.0, 0.0], [0.0, 1.0]]),))
        >>> GGNInverse(rows, 0.4, "direct", memory_budget=2**30).apply([torch.ones(1, 2).double()])  # λ = 0.4 · 1.25
        [tensor([[0.4000, 1.0000]], dtype=torch.float64)]
    """

    def __init__(self, fisher: GradientRows, damping: float, solver: str, memory_budget: int) -> None:
        n_numbers, n_rows = fisher.layout.n_numbers, len(fisher.groups[0])
        self.solver = choose_ggn_solver(n_numbers, n_rows, solver, memory_budget)
        trace = mean_square(fisher)
        require_positive(trace)
        self.fisher, self.n = fisher, len(fisher)
        self.damping = damping * trace / n_numbers
        if self.solver == "direct":
            matrix = torch.zeros(n_numbers, n_numbers, dtype=torch.float64)
            for block in fisher.blocks(8, BLOCK_BYTES):
                rows = _joined(block)
                matrix.addmm_(rows.T, rows, alpha=1 / self.n)
            matrix.diagonal().add_(self.damping)
        else:
            matrix = self._gram()
            matrix.diagonal().add_(self.n * self.damping)
        self.cholesky = factorised(matrix, self.damping)
        self.bytes_held = self.cholesky.numel() * 8
        found = {"mean_eigenvalue": trace / n_numbers, "damping_absolute": self.damping}
        self.description: dict[str, object] = {"solver": self.solver, **found}

    def apply(self, groups: list[Tensor]) -> list[Tensor]:
        """See `Inverse`."""
        gradients = torch.cat(groups, 1)
        if self.solver == "direct":
            solved = solve_factored(self.cholesky, gradients.T).T
        else:
            products = torch.cat([_joined(block) @ gradients.T for block in self.fisher.blocks(8, BLOCK_BYTES)])
            weights = solve_factored(self.cholesky, products).split(
                [len(block.groups[0]) for block in self.fisher.blocks(8, BLOCK_BYTES)]
            )
            solved = gradients.clone()
            for share, block in zip(weights, self.fisher.blocks(8, BLOCK_BYTES), strict=True):
                solved.addmm_(share.T, _joined(block), alpha=-1)
            solved /= self.damping
        return list(solved.split([group.shape[1] for group in groups], 1))

    def _gram(self) -> Tensor:
        """G Gᵀ, block by block."""
        size = len(self.fisher.groups[0])
        matrix = torch.empty(size, size, dtype=torch.float64)
        first = 0
        for left in self.fisher.blocks(8, BLOCK_BYTES):
            rows, start = _joined(left), 0
            for right in self.fisher.blocks(8, BLOCK_BYTES):
                others = _joined(right)
                matrix[first : first + len(rows), start : start + len(others)] = rows @ others.T
                start += len(others)
            first += len(rows)
        return matrix


def _joined(block: GradientRows) -> Tensor:
    return torch.cat([group.double() for group in block.groups], 1)


class LayerwiseInverse(ABC):
    """Layer by layer, nothing between layers.

    Args:
        layout: the layers' places.
    """

    bytes_held: int

    def __init__(self, layout: RowLayout) -> None:
        self.layout = layout
        self.dampings: list[float] = []
        self.means: list[float] = []

    @property
    def description(self) -> dict[str, object]:
        """Each layer's λ."""
        return {"mean_eigenvalue": self.means, "damping_absolute": self.dampings}

    def apply(self, groups: list[Tensor]) -> list[Tensor]:
        """See `Inverse`."""
        solved = []
        for number, group in enumerate(groups):
            out = torch.empty_like(group)
            for layer, part in self.layout.parts(number):
                out[:, part] = self.solve_layer(layer, group[:, part])
            solved.append(out)
        return solved

    @abstractmethod
    def solve_layer(self, layer: int, gradients: Tensor) -> Tensor:
        """(H_l + λ_l)⁻¹ applied to rows, [rows, k_out · k_in]."""


class KroneckerInverse(LayerwiseInverse):
    """(EK-)FAC in the projected space: covariances as the pass left them, corrected eigenvalues from the rows.

    Args:
        fisher: rows with their covariances.
        damping: λ of a layer relative to the mean eigenvalue of its block.
        corrected: EK-FAC, else K-FAC.

    Raises:
        UserError: a layer's block vanishes.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.projected_curvature import KroneckerInverse
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> covariances = ((torch.eye(2).double(), torch.ones(1, 1).double()),)  # A of the inputs, S of the outputs
        >>> rows = GradientRows(row_layout(["score"], [(1, 2)]), (torch.eye(2),), covariances=covariances)
        >>> inverse = KroneckerInverse(rows, damping=1.0, corrected=False)
        >>> inverse.apply([torch.ones(1, 2).double()])  # over 1 + λ, λ = 1
        [tensor([[0.5000, 0.5000]], dtype=torch.float64)]
    """

    def __init__(self, fisher: GradientRows, damping: float, corrected: bool) -> None:
        super().__init__(fisher.layout)
        assert fisher.covariances is not None
        self.bases = [eigenbasis(inputs, outputs) for inputs, outputs in fisher.covariances]
        if corrected:
            self._correct(fisher)
        named = zip(self.bases, self.layout.names, strict=True)
        self.dampings = [absolute_damping(basis, damping, name) for basis, name in named]
        self.means = [float(basis.eigenvalues.mean()) for basis in self.bases]
        self.bytes_held = 8 * sum(b.inputs.numel() + b.outputs.numel() + b.eigenvalues.numel() for b in self.bases)

    def _correct(self, fisher: GradientRows) -> None:
        for basis in self.bases:
            basis.eigenvalues.zero_()
        for block in fisher.blocks(24, BLOCK_BYTES):
            for number, group in enumerate(block.groups):
                for layer, part in self.layout.parts(number):
                    basis = self.bases[layer]
                    gradients = group[:, part].double().unflatten(1, basis.eigenvalues.shape)
                    rotated = basis.outputs.T @ (gradients @ basis.inputs)
                    basis.eigenvalues.add_(rotated.square_().sum(0), alpha=1 / len(fisher))

    def solve_layer(self, layer: int, gradients: Tensor) -> Tensor:
        """See `LayerwiseInverse`."""
        basis: LayerBasis = self.bases[layer]
        blocks = gradients.unflatten(1, basis.eigenvalues.shape)
        return solve(basis, self.dampings[layer], blocks).flatten(1)
