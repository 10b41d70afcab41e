"""Keys of neurons seen from the residual stream: rows that give a coefficient, and by what the norm before divides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy import Anatomy
from twinlens.models.norms import Norm, norm_of, wide


class KeysInStream(ABC):
    """The part of `twinlens.models.residual.ResidualEngine` that reads what neurons read.

    Attributes:
        norms: taken apart, by part (`mlp`, `attention`) and layer, when they are asked for.
    """

    anatomy: Anatomy
    family: str
    gated: bool
    hidden_size: int
    n_heads: int
    n_key_heads: int
    head_dim: int
    norms: dict[tuple[str, int], Norm]

    @abstractmethod
    def values(self, layer: int) -> Tensor:
        """Value vectors of FFN neurons, [neurons, hidden]."""

    def mlp_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """Rows [units, factors, hidden] and constants [units, factors]; see `ResidualModel.mlp_keys`."""
        block = self.anatomy.blocks[layer]
        norm = self.mlp_norm(layer)
        if not corrected and self.gated:
            rows = wide(self.values(layer)[units])[:, None]
            return rows * scale_of(norm.weight, rows), rows.new_zeros(len(rows), 1)
        parts = [part.of(units) for part in self.anatomy.key_rows(block)]
        rows = torch.stack([wide(found) for found, _ in parts], 1)
        biases = [rows.new_zeros(len(units)) if bias is None else wide(bias) for _, bias in parts]
        return self._through(norm, rows, torch.stack(biases, 1), corrected)

    def attention_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """Rows [units, 1, hidden] and constants [units, 1]; see `ResidualModel.attention_keys`.

        Raises:
            UserError: not `corrected` with fewer key heads than heads, where the notebooks' rows do not exist.
        """
        if not corrected and self.n_key_heads != self.n_heads:
            raise UserError(
                f"mode=notebook takes row head·{self.head_dim}+dim of the value projection, but this {self.family} "
                f"model shares {self.n_key_heads} key heads between {self.n_heads} heads, so it has no such row; "
                "expected as many key heads as heads: use mode=corrected."
            )
        repeats = self.n_heads // self.n_key_heads
        head, dim = units // self.head_dim // repeats, units % self.head_dim
        block = self.anatomy.blocks[layer]
        projection: Any = self.anatomy.value_projection(block)
        rows = wide(self._value_weights(layer)[head, dim])[:, None]
        if projection.bias is None:
            bias = rows.new_zeros(len(rows), 1)
        else:
            bias = wide(self.anatomy.head_values(block, projection.bias.detach())[head, dim])[:, None]
        return self._through(self.attention_norm(layer), rows, bias, corrected)

    def _value_weights(self, layer: int) -> Tensor:
        """Rows of the value projection, [key heads, head_dim, hidden]."""
        block = self.anatomy.blocks[layer]
        rows = projection_rows(self.anatomy.value_projection(block)).detach()
        return self.anatomy.head_values(block, rows).movedim(0, -1)

    def _through(self, norm: Any, rows: Tensor, bias: Tensor, corrected: bool) -> tuple[Tensor, Tensor]:
        if not corrected:
            return rows * scale_of(norm.weight, rows), torch.zeros_like(bias)
        if norm.bias is not None:
            bias = bias + rows @ norm.bias.to(rows.dtype)
        return norm.gradient(rows), bias

    def mlp_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """By which the norm before the MLP divides, [..., hidden] → [...]."""
        return self.mlp_norm(layer).statistic(residual)

    def attention_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """By which the norm before the attention divides, [..., hidden] → [...]."""
        return self.attention_norm(layer).statistic(residual)

    def mlp_norm(self, layer: int) -> Norm:
        """What the MLP reads the residual stream through."""
        return self._norm("mlp", layer)

    def attention_norm(self, layer: int) -> Norm:
        """What the attention's values read the residual stream through."""
        return self._norm("attention", layer)

    def _norm(self, part: str, layer: int) -> Norm:
        if (part, layer) not in self.norms:
            of = self.anatomy.pre_mlp_norm if part == "mlp" else self.anatomy.pre_attention_norm
            self.norms[part, layer] = norm_of(of(self.anatomy.blocks[layer]), self.hidden_size)
        return self.norms[part, layer]


def scale_of(weight: Tensor | None, like: Tensor) -> Tensor:
    """A norm's scale in the type of `like`, 1 without a norm."""
    return like.new_ones(()) if weight is None else weight.to(like.dtype)
