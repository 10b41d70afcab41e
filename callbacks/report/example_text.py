"""The texts, labels and marks of an example as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.attribution.readouts import choice_names
from twinlens.callbacks.passes.example_columns import PLANTS

LENGTHS = (100_000, 20_000, 8_000, 4_000, 2_000, 1_000, 400)
"""Characters after which a text of a page is cut: the longest that keeps all texts within `MAX_CHARACTERS`."""
MAX_CHARACTERS = 10_000_000
"""Characters of all texts of a split on the page. They take up to 0.7 bytes each there, and a page may have 15 MB."""


def label_name(names: Mapping[int, str], label: int | None) -> str:
    """Name of a class, its number where the run keeps no names, empty for none."""
    return "" if label is None or label < 0 else names.get(label, str(label))


def whole_text(value: Any) -> str:
    """A text, or one line for each choice, led by its letter; empty for none."""
    if isinstance(value, list):
        letters = choice_names(len(value))
        return "\n".join(f"{letter}: {text or ''}" for letter, text in zip(letters, value, strict=True))
    return value or ""


def cut_length(texts: Sequence[str]) -> int:
    """Characters after which the texts are cut, see `LENGTHS`."""
    sizes = [len(text) for text in texts]
    fitting = (length for length in LENGTHS if sum(min(size, length) for size in sizes) <= MAX_CHARACTERS)
    return next(fitting, LENGTHS[-1])


def cut_text(text: str, length: int) -> str:
    """A text of at most `length` characters; what is left out is said."""
    if len(text) <= length:
        return text
    return f"{text[:length]} [{len(text) - length} more characters in the run's files]"


def marks(row: Mapping[str, Any]) -> list[str]:
    """Names of the plants that this row carries: true flags, and ids from 0."""
    return [name.replace("_", " ") for name in PLANTS if _planted(name, row.get(name))]


def twin_of(row: Mapping[str, Any]) -> int:
    """Source row of the planted partner in the other split, −1 for none."""
    return int(row["twin"]) if _planted("twin", row.get("twin")) else -1


def _planted(name: str, value: Any) -> bool:
    identifies = name == "twin" and isinstance(value, int) and not isinstance(value, bool)
    return value >= 0 if identifies else name != "twin" and bool(value)
