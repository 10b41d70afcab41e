"""Projections of the layers' gradients, drawn from a seed or taken from the data.

A random two-sided projection keeps inner products in expectation: with entries ±1/√k on both sides,
E ⟨RᵀGL, RᵀHL⟩ = ⟨G, H⟩, and the relative error falls as 1/√k of either side (Johnson and Lindenstrauss 1984; two-sided
as in TRAK's and LoGra's layer-wise form, Park et al. 2023, Choe et al. 2024). A projection onto the leading
eigenvectors of the layer's inputs and output gradients (PCA) keeps what varies most and is deterministic.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.counter_random import mix
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import UNPROJECTED, TwoSided
from twinlens.attribution.protocols import LinearLayer

ProjectionKind = Literal["none", "random", "pca"]


@dataclass(frozen=True)
class Projection:
    """Settings that make gradients small.

    Attributes:
        kind: `none` keeps them whole; `random` signs from `seed`; `pca` the leading eigenvectors of the train split's
            covariances.
        dim: numbers per side, k_in = k_out; a side that is no wider stays as it is. A layer's projected gradient has
            at most dim² numbers.
        seed: of the random signs; each layer draws its own from it and its name.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.projection import Projection
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> layer = LinearLayer("h.0.mlp", torch.nn.Linear(768, 10), d_in=768, d_out=10, has_bias=True)
        >>> projection = Projection("random", dim=16, seed=0)
        >>> projection.sides(layer)  # (k_out, k_in): the outputs are narrow enough
        (10, 16)
        >>> projection.random(layer).inputs.shape  # 768 inputs and the 1 of the bias
        torch.Size([769, 16])
    """

    kind: ProjectionKind = "none"
    dim: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise UserError(f"projection_dim={self.dim} keeps nothing; expected at least 1: use projection_dim=16.")

    def sides(self, layer: LinearLayer) -> tuple[int, int]:
        """(k_out, k_in) of a layer's block."""
        d_out, d_in = layer.d_out, layer.d_in + layer.has_bias
        return (d_out, d_in) if self.kind == "none" else (min(d_out, self.dim), min(d_in, self.dim))

    def random(self, layer: LinearLayer) -> TwoSided:
        """The layer's random projection, on the CPU; the same for any device, batch or process."""
        if self.kind == "none":
            return UNPROJECTED
        k_out, k_in = self.sides(layer)
        widths = {"inputs": (layer.d_in + layer.has_bias, k_in), "outputs": (layer.d_out, k_out)}
        drawn = {side: _signs(f"{self.seed}/{layer.name}/{side}", d, k) for side, (d, k) in widths.items() if k < d}
        return TwoSided(drawn.get("inputs"), drawn.get("outputs"))

    def leading(self, layer: LinearLayer, inputs: Tensor, outputs: Tensor) -> TwoSided:
        """The layer's projection onto leading eigenvectors.

        Args:
            inputs: covariance of the layer's inputs (with the 1 of a bias), [d_in + bias, d_in + bias].
            outputs: covariance of the gradients at its outputs, [d_out, d_out].
        """
        k_out, k_in = self.sides(layer)
        return TwoSided(_leading(inputs, k_in), _leading(outputs, k_out))


def _signs(key: str, rows: int, columns: int) -> Tensor:
    """±1/√columns, [rows, columns], float32."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    numbers = torch.arange(rows * columns, dtype=torch.int64) + start
    signs = (mix(numbers) & 1).to(torch.float32).mul_(2).sub_(1)
    return signs.view(rows, columns) / math.sqrt(columns)


def _leading(covariance: Tensor, k: int) -> Tensor | None:
    if k == len(covariance):
        return None
    vectors = torch.linalg.eigh(covariance.double()).eigenvectors[:, -k:].flip(1)
    # an eigenvector's sign is arbitrary: its largest entry is made positive, so that results can be compared
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return (vectors * largest.sign()).to(torch.float32)
