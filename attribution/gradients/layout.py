"""Places of the layers' blocks in rows of projected gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        >>> from twinlens.attribution.gradients.layout import row_layout
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
