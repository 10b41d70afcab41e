"""Normalisation layers taken apart: the statistic, which can be frozen, and the linear map that remains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError


@dataclass(frozen=True)
class Norm:
    """A LayerNorm or RMSNorm as `direction(x) / statistic(x) + bias`, where `direction` is linear.

    Attributes:
        weight: scale of each dimension, [hidden] (for Gemma 1 + its parameter); None: no norm at all.
        bias: [hidden], or None.
        centred: whether the mean is taken off (LayerNorm).
        eps: added to the variance or mean square.
    """

    weight: Tensor | None
    bias: Tensor | None
    centred: bool
    eps: float

    def statistic(self, x: Tensor) -> Tensor:
        """Standard deviation or root mean square of [..., hidden], [...], in float32 at least; 1 without a norm."""
        x = wide(x)
        if self.weight is None:
            return torch.ones_like(x[..., 0])
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return (x.pow(2).mean(-1) + self.eps).sqrt()

    def direction(self, x: Tensor) -> Tensor:
        """The linear part, [..., hidden] → [..., hidden], not yet divided by the statistic."""
        x = wide(x)
        if self.weight is None:
            return x
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return x * self.weight.to(x.dtype)

    def gradient(self, g: Tensor) -> Tensor:
        """Transpose of `direction`, [..., hidden] → [..., hidden]: keys seen through the norm."""
        g = wide(g)
        if self.weight is None:
            return g
        g = g * self.weight.to(g.dtype)
        return g - g.mean(-1, keepdim=True) if self.centred else g

    def __call__(self, x: Tensor) -> Tensor:
        """The whole norm, [..., hidden] → [..., hidden]."""
        normed = self.direction(x) / self.statistic(x)[..., None]
        return normed if self.bias is None else normed + self.bias.to(normed.dtype)


def wide(x: Tensor) -> Tensor:
    """At least float32, so that half-precision models rank their neurons as their float32 copies do."""
    return x if x.dtype == torch.float64 else x.float()


def norm_of(module: nn.Module | None) -> Norm:
    """A normalisation module taken apart; None is the identity.

    Raises:
        UserError: for a module that is neither a LayerNorm nor an RMSNorm.
    """
    if module is None:
        return Norm(None, None, False, 0.0)
    layer: Any = module
    kind = type(module).__name__
    if isinstance(module, nn.LayerNorm):
        return Norm(layer.weight.detach(), layer.bias if layer.bias is None else layer.bias.detach(), True, layer.eps)
    if kind.endswith("RMSNorm"):
        weight = layer.weight.detach()
        eps = layer.variance_epsilon if hasattr(layer, "variance_epsilon") else layer.eps
        # Gemma stores the scale's distance from 1
        return Norm(1 + weight if kind.startswith("Gemma") else weight, None, False, eps)
    raise UserError(
        f"the norm '{kind}' is neither a LayerNorm nor an RMSNorm, so its statistic cannot be frozen; expected a model "
        "whose norms are one of these: use a method that differentiates the model (method=ig)."
    )
