"""A segment of training as a linear map of gradients, in the eigenbasis of the segment's curvature.

Within a segment gradients and curvature H are taken to stand still, and training to be gradient descent over a time T,
the sum of its learning rates. A shift of the parameters before the segment is then exp(−TH) of itself behind it, and
one more unit of weight on a gradient g throughout the segment shifts them by −(1 − exp(−TH))/H g = −∫₀ᵀ exp(−tH) dt g.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from twinlens.attribution.gradients.fisher import LayerBasis
from twinlens.attribution.gradients.projected_curvature import KroneckerInverse
from twinlens.attribution.gradients.rows import GradientRows


class Segment:
    """exp(−TH) and (1 − exp(−TH))/H, H by (EK-)FAC, layer by layer.

    Args:
        fisher: rows that the segment's curvature is made of, with their covariances.
        duration: T, the sum of the learning rates of the segment's steps, above 0.
        corrected: EK-FAC, else K-FAC.

    Attributes:
        bytes_held: what the bases take.

    Raises:
        UserError: a layer's block vanishes.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> from twinlens.attribution.gradients.segments import Segment
        >>> covariances = ((torch.eye(2).double(), torch.ones(1, 1).double()),)  # A of the inputs, S of the outputs
        >>> rows = GradientRows(row_layout(["score"], [(1, 2)]), (torch.eye(2),), covariances=covariances)
        >>> segment = Segment(rows, duration=0.5, corrected=False)  # H is the identity
        >>> segment.decayed([torch.ones(1, 2).double()])[0].round(decimals=4)  # exp(−½)
        tensor([[0.6065, 0.6065]], dtype=torch.float64)
        >>> segment.gathered([torch.ones(1, 2).double()])[0].round(decimals=4)  # 1 − exp(−½)
        tensor([[0.3935, 0.3935]], dtype=torch.float64)
    """

    def __init__(self, fisher: GradientRows, duration: float, corrected: bool) -> None:
        inverse = KroneckerInverse(fisher, 1.0, corrected)  # whose damping is not asked for
        self.layout = inverse.layout
        self.bases = inverse.bases
        self.means = inverse.means
        self.bytes_held = inverse.bytes_held
        self.duration = duration

    def decayed(self, groups: list[Tensor]) -> list[Tensor]:
        """exp(−TH) g, of each group of layers [rows, width], float64."""
        return self._mapped(groups, lambda values: torch.exp(-self.duration * values))

    def gathered(self, groups: list[Tensor]) -> list[Tensor]:
        """(1 − exp(−TH))/H g, of each group of layers [rows, width], float64; T g where H vanishes."""

        def gain(values: Tensor) -> Tensor:
            flat = values * self.duration < torch.finfo(values.dtype).eps
            return torch.where(flat, self.duration, -torch.expm1(-self.duration * values) / values.clamp_min(1e-300))

        return self._mapped(groups, gain)

    def _mapped(self, groups: list[Tensor], factor: Callable[[Tensor], Tensor]) -> list[Tensor]:
        mapped = []
        for number, group in enumerate(groups):
            out = torch.empty_like(group)
            for layer, part in self.layout.parts(number):
                out[:, part] = _in_basis(self.bases[layer], group[:, part], factor)
            mapped.append(out)
        return mapped


def _in_basis(basis: LayerBasis, gradients: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of one layer's curvature applied to rows, [rows, k_out · k_in]."""
    blocks = gradients.unflatten(1, basis.eigenvalues.shape)
    rotated = basis.outputs.T @ (blocks @ basis.inputs) * factor(basis.eigenvalues.clamp_min(0))
    return (basis.outputs @ (rotated @ basis.inputs.T)).flatten(1)
