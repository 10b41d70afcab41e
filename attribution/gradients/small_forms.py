"""Small forms of rows of projected gradients: float16 with a scale per row, or singular triplets in 8 bits.

A layer's gradient is a sum of outer products, and few of them carry most of it. Kept as its `c` leading singular
triplets instead of all k_out · k_in numbers it takes c · (k_out + k_in) of them (LoRIF: low-rank influence functions,
2026). Rows that are explained, few and met by all others, are never made small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.gradients.layout import RowLayout
from twinlens.attribution.gradients.row_forms import Storage

FEW_TESTS = 4
"""Up to so many tests meet the factors themselves; more meet rows that are formed once for all of them."""
ROWS_FORMED_AT_ONCE = 256
"""Rows that are formed at a time: their numbers stay in the caches."""
HALF_TOP = 2.0**14
"""What the largest number of a row is scaled to, less than a factor of two off: far below float16's 65504, so that
numbers down to 2⁻³⁸ of it are not lost."""
BYTE_TOP = 127


class _Small:
    """What the forms have in common that have to be turned back into numbers."""

    exact: ClassVar[bool] = False

    def group(self, layout: RowLayout, arrays: Sequence[Tensor], number: int) -> Tensor:
        raise NotImplementedError

    def products(
        self, layout: RowLayout, left: Tensor, arrays: Sequence[Tensor], number: int, total: Tensor | None
    ) -> Tensor:
        """See `RowForm`: some rows are formed at a time."""
        out = _zeros(left, arrays) if total is None else total
        for start in range(0, out.shape[1], ROWS_FORMED_AT_ONCE):
            part = slice(start, start + ROWS_FORMED_AT_ONCE)
            out[:, part] += left @ self.group(layout, [array[part] for array in arrays], number).T
        return out

    def working_bytes(self, layout: RowLayout) -> int:
        """See `RowForm`: rows that are formed, beside what they are formed of."""
        return 3 * 4 * max(layout.widths) * ROWS_FORMED_AT_ONCE


@dataclass(frozen=True)
class Half(_Small):
    """float16 times a power of two of each row's own: nothing overflows, and no more than rounding is lost of numbers
    above 2⁻²⁷ of the row's largest.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.small_forms import Half
        >>> form, layout = Half(), row_layout(["score"], [(1, 3)])
        >>> form.group(layout, form.encode(layout, [torch.tensor([[1e30, -3e29, 0.0]])]), 0)  # beyond float16 itself
        tensor([[ 1.0003e+30, -3.0005e+29,  0.0000e+00]])
    """

    name: ClassVar[Storage] = "half"

    def arrays(self, layout: RowLayout) -> list[tuple[int, torch.dtype]]:
        """See `RowForm`: one array for each group of layers, and the scales."""
        return [*((width, torch.float16) for width in layout.widths), (1, torch.float32)]

    def encode(self, layout: RowLayout, groups: Sequence[Tensor]) -> list[Tensor]:
        """See `RowForm`."""
        largest = torch.stack([group.abs().amax(1) for group in groups]).amax(0)
        # a power of two changes no digit; the smallest rows are scaled as far as float32 goes
        exponent = torch.frexp(largest).exponent.clamp(-110, 127).to(torch.float32)
        scale = torch.where(largest > 0, torch.exp2(exponent), 1.0)[:, None]
        return [*((group / scale * HALF_TOP).to(torch.float16) for group in groups), scale / HALF_TOP]

    def group(self, layout: RowLayout, arrays: Sequence[Tensor], number: int) -> Tensor:
        """See `RowForm`."""
        return arrays[number].to(torch.float32).mul_(arrays[-1])

    def identity(self) -> dict[str, object]:
        """See `RowForm`."""
        return {"storage": self.name}


@dataclass(frozen=True)
class Factored(_Small):
    """The leading singular triplets of each layer's gradient, vectors in 8 bits and their weight in float32.

    Attributes:
        rank: triplets of a layer; a narrower layer has as many as its narrower side, which is all of it.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.small_forms import Factored
        >>> form, layout = Factored(rank=1), row_layout(["score"], [(2, 2)])
        >>> of_rank_one = torch.tensor([[2.0, 0.0, 4.0, 0.0]])  # the gradient [[2, 0], [4, 0]]
        >>> form.group(layout, form.encode(layout, [of_rank_one]), 0).round(decimals=1)
        tensor([[2., 0., 4., 0.]])
    """

    name: ClassVar[Storage] = "factored"

    rank: int = 3

    def ranks(self, layout: RowLayout) -> list[int]:
        """Triplets of each layer."""
        return [min(self.rank, *shape) for shape in layout.shapes]

    def arrays(self, layout: RowLayout) -> list[tuple[int, torch.dtype]]:
        """See `RowForm`: the vectors of each group of layers, then all weights."""
        ranks = self.ranks(layout)
        widths = [sum(ranks[layer] * sum(layout.shapes[layer]) for layer in range(*group)) for group in layout.groups]
        return [*((width, torch.int8) for width in widths), (sum(ranks), torch.float32)]

    def encode(self, layout: RowLayout, groups: Sequence[Tensor]) -> list[Tensor]:
        """See `RowForm`."""
        vectors, weights = [], []
        for number, group in enumerate(groups):
            parts = []
            for layer, columns in layout.parts(number):
                block = group[:, columns].unflatten(1, layout.shapes[layer])
                left, right, weight = _in_bytes(*leading_triplets(block, self.ranks(layout)[layer]))
                parts += [left.flatten(1), right.flatten(1)]
                weights.append(weight)
            vectors.append(torch.cat(parts, 1))
        return [*vectors, torch.cat(weights, 1)]

    def group(self, layout: RowLayout, arrays: Sequence[Tensor], number: int) -> Tensor:
        """See `RowForm`."""
        out = torch.empty(len(arrays[number]), layout.widths[number], dtype=torch.float32)
        for columns, left, right in self._factors(layout, arrays, number):
            out[:, columns] = (left.mT @ right).flatten(1)
        return out

    def products(
        self, layout: RowLayout, left: Tensor, arrays: Sequence[Tensor], number: int, total: Tensor | None
    ) -> Tensor:
        """See `RowForm`: of few tests Σ_a u_aᵀ X v_a, in which no row is formed; of more as of other forms."""
        if len(left) > FEW_TESTS:
            return super().products(layout, left, arrays, number, total)
        out = _zeros(left, arrays) if total is None else total
        for start in range(0, out.shape[1], ROWS_FORMED_AT_ONCE):
            part = slice(start, start + ROWS_FORMED_AT_ONCE)
            for columns, outputs, inputs in self._factors(layout, [array[part] for array in arrays], number):
                asked = left[:, columns].unflatten(1, (outputs.shape[2], inputs.shape[2]))
                met = asked @ inputs.flatten(0, 1).T  # [tests, k_out, rows · rank]
                out[:, part] += met.mul_(outputs.flatten(0, 1).T).sum(1).unflatten(1, inputs.shape[:2]).sum(2)
        return out

    def _factors(self, layout: RowLayout, arrays: Sequence[Tensor], number: int) -> list[tuple[slice, Tensor, Tensor]]:
        """Of each layer its columns, u with the weights, [rows, rank, k_out], and v, [rows, rank, k_in], float32."""
        ranks = self.ranks(layout)
        found, start = [], 0
        at = sum(ranks[: layout.groups[number][0]])
        for layer, columns in layout.parts(number):
            rank, (k_out, k_in) = ranks[layer], layout.shapes[layer]
            middle, stop = start + rank * k_out, start + rank * (k_out + k_in)
            vectors = arrays[number][:, start:stop].to(torch.float32)
            left = vectors[:, : middle - start].unflatten(1, (rank, k_out))
            right = vectors[:, middle - start :].unflatten(1, (rank, k_in))
            found.append((columns, left * arrays[-1][:, at : at + rank, None], right))
            start, at = stop, at + rank
        return found

    def identity(self) -> dict[str, object]:
        """See `RowForm`."""
        return {"storage": self.name, "storage_rank": self.rank}


def leading_triplets(blocks: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading right singular vectors v of matrices G, and G v, which is u times its singular value.

    From an eigendecomposition of the smaller Gram matrix in float64. What is kept, G v vᵀ, is an exact projection
    however close singular values are.

    Args:
        blocks: [rows, k_out, k_in].
        rank: at most the narrower side.

    Returns:
        G v, [rows, rank, k_out], and v, [rows, rank, k_in], float64; of turned matrices the two in turn.
    """
    exact = blocks.double()
    turned = exact.shape[1] < exact.shape[2]
    narrow = exact.mT if turned else exact  # [rows, wide side, narrow side]
    vectors = torch.linalg.eigh(narrow.mT @ narrow).eigenvectors[..., -rank:]
    images = (narrow @ vectors).mT
    return (vectors.mT, images) if turned else (images, vectors.mT)


def _zeros(left: Tensor, arrays: Sequence[Tensor]) -> Tensor:
    return torch.zeros(len(left), len(arrays[0]), dtype=torch.float32)


def _in_bytes(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, [rows, rank, k], as int8, each scaled to its own largest number, and one float32 weight of each pair."""
    tops = [side.abs().amax(2, keepdim=True) for side in (left, right)]
    whole = [
        torch.where(top > 0, side / top * BYTE_TOP, 0.0).round_() for side, top in zip((left, right), tops, strict=True)
    ]
    weight = (tops[0] * tops[1] / BYTE_TOP**2)[..., 0].to(torch.float32)
    return whole[0].to(torch.int8), whole[1].to(torch.int8), weight
