"""The texts, labels and marks of an example as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twinlens.attribution.readouts import choice_names
from twinlens.callbacks.passes.example_columns import PLANTS

MAX_CHARACTERS = 4000
"""A longer field is cut in the page, with the number of characters left out; the run's files keep it whole."""

_HEAD = 420  # characters of a field shown before "more"
_EXCERPT = 130  # characters of a field shown in a list


@dataclass(frozen=True)
class Text:
    """One text field: `head` is shown, `tail` folded, `cut` characters are left out."""

    column: str
    head: str
    tail: str
    cut: int

    @property
    def excerpt(self) -> str:
        """The beginning, for lists."""
        return _split(self.head, _EXCERPT)[0]

    @property
    def shortened(self) -> bool:
        """Whether the excerpt leaves anything out."""
        return bool(self.tail or self.cut or len(self.excerpt) < len(self.head))


def label_name(names: Mapping[int, str], label: int | None) -> str:
    """Name of a class, its number where the run keeps no names, empty for none."""
    return "" if label is None or label < 0 else names.get(label, str(label))


def text_fields(row: Mapping[str, Any], columns: Sequence[str]) -> list[Text]:
    """The text columns of a row, long ones split where the page folds them."""
    texts = []
    for column in columns:
        whole = _whole(row.get(column))
        shown = whole[:MAX_CHARACTERS]
        head, tail = _split(shown, _HEAD)
        texts.append(Text(column, head, tail, len(whole) - len(shown)))
    return texts


def _whole(value: Any) -> str:
    """A text, or one line for each choice, led by its letter."""
    if isinstance(value, list):
        letters = choice_names(len(value))
        return "\n".join(f"{letter}: {text or ''}" for letter, text in zip(letters, value, strict=True))
    return value or ""


def _split(text: str, length: int) -> tuple[str, str]:
    """Split at the last space before `length`; a rest of a few words is not worth folding."""
    if len(text) <= length * 1.25:
        return text, ""
    place = text.rfind(" ", length // 2, length)
    place = length if place < 0 else place
    return text[:place], text[place:]


def marks(row: Mapping[str, Any]) -> list[str]:
    """Names of the plants that this row carries: true flags, and ids from 0."""
    return [name.replace("_", " ") for name in PLANTS if _planted(name, row.get(name))]


def _planted(name: str, value: Any) -> bool:
    identifies = name == "twin" and isinstance(value, int) and not isinstance(value, bool)
    return value >= 0 if identifies else bool(value)


def is_twin(row: Mapping[str, Any], train: Mapping[str, Any]) -> bool:
    """Whether this training instance is the planted near-duplicate of this example.

    `twin` is the source row of the partner in the other split; both partners must name each other.
    """
    own, other = row.get("twin"), train.get("twin")
    if not (_planted("twin", own) and _planted("twin", other)):
        return False
    return bool(own == train.get("source_index") and other == row.get("source_index"))
