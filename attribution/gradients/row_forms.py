"""The form in which rows of projected gradients are kept: what a form has to say, and the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from twinlens.attribution.gradients.layout import RowLayout

Storage = Literal["dense", "half", "factored"]
"""`dense` is float32, `half` float16 with a float32 scale per row, `factored` singular triplets in 8 bits."""


class RowForm(Protocol):
    """A form of rows.

    Attributes:
        name: as settings have it.
        exact: whether what comes back is bit by bit what was given.

    Example:
        >>> from twinlens.attribution.gradients.row_forms import DENSE, RowForm
        >>> form: RowForm = DENSE
        >>> form.name, form.exact
        ('dense', True)
    """

    @property
    def name(self) -> Storage: ...

    @property
    def exact(self) -> bool: ...

    def arrays(self, layout: RowLayout) -> list[tuple[int, torch.dtype]]:
        """Width and type of each array that holds a row."""

    def encode(self, layout: RowLayout, groups: Sequence[Tensor]) -> list[Tensor]:
        """The arrays of rows in float32, [rows, width] per group of layers; finite, unless the form is exact."""

    def group(self, layout: RowLayout, arrays: Sequence[Tensor], number: int) -> Tensor:
        """The rows of one group of layers, [rows, width], float32."""

    def products(
        self, layout: RowLayout, left: Tensor, arrays: Sequence[Tensor], number: int, total: Tensor | None
    ) -> Tensor:
        """Inner products of tests, [tests, width], with the rows of one group of layers, [tests, rows], float32.

        Args:
            total: of groups before it, which they are added to in place; None: this is the first.
        """

    def working_bytes(self, layout: RowLayout) -> int:
        """Memory that products take beside their result, whatever the number of rows."""

    def identity(self) -> dict[str, object]:
        """Plain values that the arrays depend on."""


@dataclass(frozen=True)
class Dense:
    """float32, as the gradients were taken.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.row_forms import DENSE
        >>> layout, rows = row_layout(["score"], [(1, 2)]), [torch.tensor([[0.5, -3.0]])]
        >>> DENSE.group(layout, DENSE.encode(layout, rows), 0)
        tensor([[ 0.5000, -3.0000]])
    """

    name: ClassVar[Storage] = "dense"
    exact: ClassVar[bool] = True

    def arrays(self, layout: RowLayout) -> list[tuple[int, torch.dtype]]:
        """See `RowForm`: one array for each group of layers."""
        return [(width, torch.float32) for width in layout.widths]

    def encode(self, layout: RowLayout, groups: Sequence[Tensor]) -> list[Tensor]:
        """See `RowForm`."""
        return list(groups)

    def group(self, layout: RowLayout, arrays: Sequence[Tensor], number: int) -> Tensor:
        """See `RowForm`; no copy."""
        return arrays[number]

    def products(
        self, layout: RowLayout, left: Tensor, arrays: Sequence[Tensor], number: int, total: Tensor | None
    ) -> Tensor:
        """See `RowForm`."""
        right = arrays[number].T
        return left @ right if total is None else total.addmm_(left, right)

    def working_bytes(self, layout: RowLayout) -> int:
        """See `RowForm`: none."""
        return 0

    def identity(self) -> dict[str, object]:
        """See `RowForm`."""
        return {"storage": self.name}


DENSE = Dense()
