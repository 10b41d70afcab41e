"""Normalisation layers taken apart: the statistic, which can be frozen, and the linear map that remains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.models.anatomy import Writing


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


@dataclass(frozen=True)
class Behind:
    """What lies between a projection and the residual stream, with its norm's statistic frozen.

    A coefficient c of value row v then adds c · scale · direction(v).

    Attributes:
        writing: what the model does there.
        norm: its norm taken apart; None: there is none.
    """

    writing: Writing
    norm: Norm | None

    @classmethod
    def of(cls, writing: Writing, width: int) -> Behind:
        """Taken apart, for vectors [..., width]."""
        return cls(writing, None if writing.norm is None else norm_of(writing.norm, width))

    def directions(self, rows: Tensor) -> Tensor:
        """Value rows as they point in the residual stream, [..., hidden]."""
        return rows if self.norm is None else self.norm.direction(rows)

    def scale(self, output: Tensor) -> Tensor:
        """What every coefficient behind a projection's output is multiplied with, [..., hidden] → [...]."""
        statistic = torch.ones_like(wide(output[..., 0])) if self.norm is None else self.norm.statistic(output)
        return self.writing.scale / statistic


def wide(x: Tensor) -> Tensor:
    """At least float32, so that half-precision models rank their neurons as their float32 copies do."""
    return x if x.dtype == torch.float64 else x.float()


@torch.no_grad()
def norm_of(module: nn.Module | None, width: int = 0) -> Norm:
    """A normalisation module taken apart; None is the identity.

    Whether it centres, what it adds to the variance, and whether its weight or the weight's distance from 1 is stored,
    is what reproduces the module on random numbers. Where its weight has no values of its own here (on the meta device,
    or sharded), the form that its class is named after is taken.

    Args:
        module: with or without a weight.
        width: of the vectors, for one without weight.

    Raises:
        UserError: for a module that is neither a LayerNorm nor an RMSNorm.
    """
    if module is None:
        return Norm(None, None, False, 0.0)
    stored: Any = getattr(module, "weight", None)
    if type(stored) not in (nn.Parameter, Tensor, type(None)) or (stored is not None and stored.is_meta):
        return next(_forms(module, stored.detach()))
    weight = torch.ones(width) if stored is None else stored.detach()
    if weight.dim() == 1 and len(weight):
        generator = torch.Generator().manual_seed(0)
        # the smaller the numbers, the more what is added to the variance counts
        sizes = torch.tensor([[3.0], [0.1], [0.003]])
        x = (sizes * (torch.randn(3, len(weight), generator=generator) + 0.5)).to(weight)
        expected = module(x)
        tolerance = max(1e-4, 8 * torch.finfo(x.dtype).eps)
        for form in _forms(module, weight):
            error = (form(x) - expected).abs().amax(-1) / expected.abs().amax(-1)
            if bool((error <= tolerance).all()):
                return form
    raise UserError(
        f"the norm '{type(module).__name__}' is neither a LayerNorm nor an RMSNorm, so its statistic cannot be frozen; "
        "expected a model whose norms are one of these: use a method that differentiates the model (method=ig)."
    )


def _forms(module: Any, weight: Tensor) -> Iterator[Norm]:
    """What a module may compute, by its parameters; the form that its class is named after first."""
    bias = getattr(module, "bias", None)
    bias = None if bias is None else bias.detach()
    named = [getattr(module, name, None) for name in ("variance_epsilon", "eps")]
    added = [value for value in named if isinstance(value, float)] or [1e-5, 1e-6, torch.finfo(weight.dtype).eps]
    name = type(module).__name__
    centred = "RMSNorm" not in name
    for mean in (centred, not centred):
        for eps in added:
            scales = [weight, 1 + weight]
            for scale in reversed(scales) if name.startswith("Gemma") else scales:
                yield Norm(scale, bias, mean, eps)
