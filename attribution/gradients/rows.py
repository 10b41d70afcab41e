"""Projected gradients of a split, one row per example (or token), in arrays that need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

GROUP_WIDTH = 4096
"""Numbers up to which consecutive layers share an array: wide enough for fast products, few files for small models."""


@dataclass(frozen=True)
class RowLayout:
    """Places of the layers' blocks in a row.

    Attributes:
        names: of the layers.
        shapes: (k_out, k_in) of each layer's block, which stands row-major in a row.
        groups: (first, last + 1) layer of each array.

    Example:
        >>> from twinlens.attribution.gradients.rows import row_layout
        >>> layout = row_layout(["up", "down"], [(4, 3), (2, 4)])
        >>> layout.sizes, layout.n_numbers, list(layout.parts(0))
        ([12, 8], 20, [(0, slice(0, 12, None)), (1, slice(12, 20, None))])
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    groups: tuple[tuple[int, int], ...]

    @property
    def sizes(self) -> list[int]:
        """Numbers of each layer's block."""
        return [k_out * k_in for k_out, k_in in self.shapes]

    @property
    def widths(self) -> list[int]:
        """Numbers of a row in each array."""
        return [sum(self.sizes[first:last]) for first, last in self.groups]

    @property
    def n_numbers(self) -> int:
        """Numbers of a row in all arrays."""
        return sum(self.sizes)

    def parts(self, group: int) -> Iterator[tuple[int, slice]]:
        """Layers of an array, each with its columns there."""
        start = 0
        for layer in range(*self.groups[group]):
            yield layer, slice(start, start + self.sizes[layer])
            start += self.sizes[layer]


def row_layout(names: Sequence[str], shapes: Sequence[tuple[int, int]]) -> RowLayout:
    """Consecutive layers in arrays of up to `GROUP_WIDTH` numbers per row; a wider layer has one of its own."""
    groups: list[tuple[int, int]] = []
    first, width = 0, 0
    for layer, (k_out, k_in) in enumerate(shapes):
        if layer > first and width + k_out * k_in > GROUP_WIDTH:
            groups.append((first, layer))
            first, width = layer, 0
        width += k_out * k_in
    groups.append((first, len(shapes)))
    return RowLayout(tuple(names), tuple(shapes), tuple(groups))


@dataclass(frozen=True)
class GradientRows:
    """Stored gradients of one split, as instance attribution reads them.

    Attributes:
        layout: the layers' places in a row.
        groups: one array per group of layers, [rows · rank, width], float32; memory-mapped ones are read as they are
            used.
        rank: consecutive array rows per row: 1 for gradients of losses, classes − 1 for the rows of a GGN.
        covariances: (A, S) of each layer in the projected space, float64: the mean of a aᵀ over tokens, [k_in, k_in],
            and the mean over rows of Σ δ δᵀ, [k_out, k_out]; None where they are not kept.
        fisher: of the train split, rows whose outer products add up to the curvature; None: these rows' own.
        options: what the gradients are of, plain values for `method.yaml`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.rows import GradientRows, row_layout
        >>> rows = GradientRows(row_layout(["score"], [(2, 3)]), (torch.ones(5, 6),))
        >>> len(rows), rows.rows(1, 3).groups[0].shape, rows.squared_norms()
        (5, torch.Size([2, 6]), tensor([6., 6., 6., 6., 6.], dtype=torch.float64))
    """

    layout: RowLayout
    groups: tuple[Tensor, ...]
    rank: int = 1
    covariances: tuple[tuple[Tensor, Tensor], ...] | None = None
    fisher: GradientRows | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.groups[0]) // self.rank

    def rows(self, start: int, stop: int) -> GradientRows:
        """A contiguous part, without a copy."""
        part = tuple(group[start * self.rank : stop * self.rank] for group in self.groups)
        return replace(self, groups=part)

    @property
    def curvature_rows(self) -> GradientRows:
        """The rows that curvature is made of."""
        return self if self.fisher is None else self.fisher

    def blocks(self, bytes_per_number: int, memory_budget: int) -> Iterator[GradientRows]:
        """All rows in consecutive parts whose numbers, worked on with `bytes_per_number` each, fit the budget."""
        per_row = self.layout.n_numbers * self.rank * bytes_per_number
        size = max(1, memory_budget // max(1, per_row))
        for start in range(0, len(self), size):
            yield self.rows(start, min(start + size, len(self)))

    def squared_norms(self) -> Tensor:
        """Squared length of every array row, float64, [rows · rank]."""
        total = torch.zeros(len(self.groups[0]), dtype=torch.float64)
        for group in self.groups:
            for start in range(0, len(group), 4096):
                total[start : start + 4096] += group[start : start + 4096].double().square().sum(1)
        return total
