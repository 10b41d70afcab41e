"""From label values in files to class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinlens.attribution.errors import UserError


@dataclass(frozen=True)
class Fold:
    """Labels coarser than the model's classes, as in a challenge set whose "non-entailment" joins two of three classes.

    Attributes:
        names: names of the folded classes.
        of_class: the folded class of each of the model's classes, [classes]; every folded class has one at least.
    """

    names: tuple[str, ...]
    of_class: tuple[int, ...]

    def __post_init__(self) -> None:
        if set(self.of_class) != set(range(len(self.names))):
            raise ValueError(f"of_class={self.of_class} does not map onto the classes {self.names}")


def is_empty(value: Any) -> bool:
    """Whether a label cell says nothing: null, NaN or blank text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def label_numbers(
    source: str, rows: Sequence[int], values: Sequence[Any], names: Sequence[str], allow_empty: bool = False
) -> list[int]:
    """Class numbers of label values.

    Args:
        source: the file, for the message.
        rows: row of each value in its source, [values].
        values: names out of `names`, [values].
        names: the known labels, in class order.
        allow_empty: turn empty values into -1.

    Raises:
        UserError: a value that is no known label, with its row and the known labels.
    """
    number = {name: position for position, name in enumerate(names)}
    numbers = []
    for row, value in zip(rows, values, strict=True):
        name = label_name(value)
        if is_empty(value) and allow_empty:
            numbers.append(-1)
        elif is_empty(value) or name not in number:
            what = "an empty label" if is_empty(value) else f"the unknown label {value!r}"
            raise UserError(
                f"{source} row {row} has {what}, expected one of {', '.join(names)}: mend the row or name the labels."
            )
        else:
            numbers.append(number[name])
    return numbers


def label_name(value: Any) -> str:
    """The name of a label value; whole numbers that a reader turned into floats are written as whole numbers."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
