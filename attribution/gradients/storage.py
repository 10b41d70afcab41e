"""Forms of stored rows by their settings, the bytes that they take, and how much of the rows they keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from twinlens.attribution.gradients.layout import RowLayout
from twinlens.attribution.gradients.row_forms import DENSE, RowForm, Storage
from twinlens.attribution.gradients.small_forms import Factored, Half


def form_of(storage: Storage, rank: int) -> RowForm:
    """The form that settings name.

    Example:
        >>> from twinlens.attribution.gradients.storage import form_of
        >>> form_of("factored", rank=2)
        Factored(rank=2)
    """
    forms: dict[Storage, RowForm] = {"dense": DENSE, "half": Half(), "factored": Factored(rank)}
    return forms[storage]


def bytes_per_row(form: RowForm, layout: RowLayout) -> int:
    """Bytes of a row on disk, without its check word.

    Example:
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.storage import bytes_per_row, form_of
        >>> layout = row_layout(["up", "down"], [(16, 16), (16, 16)])
        >>> [bytes_per_row(form_of(storage, rank=3), layout) for storage in ("dense", "half", "factored")]
        [2048, 1028, 216]
    """
    return sum(width * dtype.itemsize for width, dtype in form.arrays(layout))


def kept_of(form: RowForm, layout: RowLayout, groups: Sequence[Tensor], arrays: Sequence[Tensor]) -> Kept:
    """How much of some rows their arrays keep."""
    total = Kept(0.0, 0.0, 0)
    for number, group in enumerate(groups):
        back = form.group(layout, arrays, number)
        lost = int(((back == 0) & (group != 0)).sum()) if form.name == "half" else 0
        total += Kept(float(back.double().square().sum()), float(group.double().square().sum()), lost)
    return total


@dataclass(frozen=True)
class Kept:
    """How much of some rows their form keeps.

    Attributes:
        length: Σ of squared numbers as kept.
        whole: Σ of squared numbers before.
        zeroed: numbers other than 0 that became 0; factors have none, what they leave out is told by the lengths.

    Example:
        >>> from twinlens.attribution.gradients.storage import Kept
        >>> (Kept(3.0, 4.0, 0) + Kept(1.0, 1.0, 2)).share
        0.8
    """

    length: float
    whole: float
    zeroed: int

    @property
    def share(self) -> float:
        """Of the squared length, 1 for rows that vanish."""
        return self.length / self.whole if self.whole > 0 else 1.0

    def __add__(self, other: Kept) -> Kept:
        return Kept(self.length + other.length, self.whole + other.whole, self.zeroed + other.zeroed)
