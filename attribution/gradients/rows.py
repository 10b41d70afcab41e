"""Projected gradients of a split, one row per example (or token), in arrays that need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.gradients.layout import RowLayout
from twinlens.attribution.gradients.row_forms import DENSE, RowForm

NORMS_AT_ONCE = 4096
"""Rows whose lengths are taken at a time."""


@dataclass(frozen=True)
class GradientRows:
    """Stored gradients of one split, as instance attribution reads them.

    Attributes:
        layout: the layers' places in a row.
        groups: the arrays of the rows' form, of dense ones one per group of layers, [rows · rank, width], float32;
            memory-mapped ones are read as they are used.
        rank: consecutive array rows per row: 1 for gradients of losses, classes − 1 for the rows of a GGN.
        covariances: (A, S) of each layer in the projected space, float64: the mean of a aᵀ over tokens, [k_in, k_in],
            and the mean over rows of Σ δ δᵀ, [k_out, k_out]; None where they are not kept.
        fisher: of the train split, rows whose outer products add up to the curvature; None: these rows' own.
        options: what the gradients are of, plain values for `method.yaml`.
        form: how the arrays hold the rows; `group` gives their numbers.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
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
    form: RowForm = DENSE

    def __len__(self) -> int:
        return len(self.groups[0]) // self.rank

    def rows(self, start: int, stop: int) -> GradientRows:
        """A contiguous part, without a copy."""
        part = tuple(group[start * self.rank : stop * self.rank] for group in self.groups)
        return replace(self, groups=part)

    def group(self, number: int) -> Tensor:
        """The numbers of one group of layers, [rows · rank, width], float32; of dense rows the array itself."""
        return self.form.group(self.layout, self.groups, number)

    def at(self, index: Tensor) -> GradientRows:
        """Some array rows in another order, copied."""
        return replace(self, groups=tuple(group[index] for group in self.groups))

    def formed(self) -> GradientRows:
        """The same in float32; dense rows as they are."""
        if self.form.exact:
            return self
        return replace(self, groups=tuple(map(self.group, range(len(self.layout.groups)))), form=DENSE)

    @property
    def curvature_rows(self) -> GradientRows:
        """The rows that curvature is made of."""
        return self if self.fisher is None else self.fisher

    def blocks(self, bytes_per_number: int, memory_budget: int) -> Iterator[GradientRows]:
        """All rows in consecutive parts, in float32, that worked on with `bytes_per_number` each fit the budget."""
        per_row = self.layout.n_numbers * self.rank * (bytes_per_number + 4 * (not self.form.exact))
        size = max(1, memory_budget // max(1, per_row))
        for start in range(0, len(self), size):
            yield self.rows(start, min(start + size, len(self))).formed()

    def squared_norms(self) -> Tensor:
        """Squared length of every array row, float64, [rows · rank]."""
        total = torch.zeros(len(self.groups[0]), dtype=torch.float64)
        for start in range(0, len(total), NORMS_AT_ONCE):
            part = replace(self, groups=tuple(group[start : start + NORMS_AT_ONCE] for group in self.groups))
            for number in range(len(self.layout.groups)):
                total[start : start + NORMS_AT_ONCE] += part.group(number).double().square().sum(1)
        return total
