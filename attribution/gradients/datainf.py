"""DataInf's inverse curvature in the space of stored rows, in float64: the mean of inverses over train examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.projected_curvature import BLOCK_BYTES, LayerwiseInverse
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.memory_amounts import bytes_in_words


def datainf_bytes(sizes: Sequence[int], budget: int) -> int:
    """What DataInf's matrices of layers with so many projected numbers take.

    Raises:
        UserError: more than the budget.
    """
    held = 8 * sum(size**2 for size in sizes)
    if held + BLOCK_BYTES > budget:
        raise UserError(
            f"curvature=datainf does not fit the memory budget of {bytes_in_words(budget)}: its matrices need "
            f"{bytes_in_words(held + BLOCK_BYTES)} with {max(sizes)} projected numbers in a layer; expected them "
            "within it: lower method.<name>.projection_dim or use curvature=ekfac."
        )
    return held


class DataInfInverse(LayerwiseInverse):
    """DataInf (Kwon et al. 2024, Eq. 5): the mean of inverses in place of the inverse of the mean,

    H_l⁻¹ ≈ 1/n Σ_i (g_i g_iᵀ + λ_l)⁻¹ = 1/λ_l [I − 1/n Σ_i g_i g_iᵀ / (λ_l + ‖g_i‖²)].

    Args:
        rows: gradients g of the train losses.
        damping: λ_l relative to the mean eigenvalue of the layer's 1/n Σ g gᵀ.
        memory_budget: bytes.

    Raises:
        UserError: a layer's gradients all vanish, or its matrices do not fit the budget.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.datainf import DataInfInverse
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> rows = GradientRows(row_layout(["score"], [(1, 2)]), (torch.eye(2),))
        >>> DataInfInverse(rows, 1.0, memory_budget=2**30).apply([torch.ones(1, 2).double()])
        [tensor([[1.3333, 1.3333]], dtype=torch.float64)]
    """

    def __init__(self, rows: GradientRows, damping: float, memory_budget: int) -> None:
        super().__init__(rows.layout)
        self.bytes_held = datainf_bytes(self.layout.sizes, memory_budget)
        norms = torch.zeros(len(self.layout.sizes), dtype=torch.float64)
        for layer, block in self._layer_blocks(rows):
            norms[layer] += block.square().sum()
        for name, size, norm in zip(self.layout.names, self.layout.sizes, norms.tolist(), strict=True):
            if not norm > 0:
                raise UserError(
                    f"The gradients of the layer {name} all vanish, so that relative damping cannot make its "
                    "curvature invertible; expected some: leave the layer out of the method's params."
                )
            self.means.append(norm / len(rows) / size)
        self.dampings = [damping * mean for mean in self.means]
        self.matrices = [torch.zeros(size, size, dtype=torch.float64) for size in self.layout.sizes]
        for layer, block in self._layer_blocks(rows):
            weights = 1 / (self.dampings[layer] + block.square().sum(1))
            self.matrices[layer].addmm_(block.T * weights, block, alpha=1 / len(rows))

    def _layer_blocks(self, rows: GradientRows) -> Iterator[tuple[int, Tensor]]:
        for part in rows.blocks(16, BLOCK_BYTES):
            for number, group in enumerate(part.groups):
                for layer, columns in self.layout.parts(number):
                    yield layer, group[:, columns].double()

    def solve_layer(self, layer: int, gradients: Tensor) -> Tensor:
        """See `LayerwiseInverse`."""
        return (gradients - gradients @ self.matrices[layer]) / self.dampings[layer]
