"""Kinds of values in messages, as one says them."""

from __future__ import annotations

from typing import Any

VOWELS = tuple("aeiou")


def kind_in_words(value: Any) -> str:
    """`None`, `the class Linear`, `an int`, `a Tensor`."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name.lower().startswith(VOWELS) else 'a'} {name}"
