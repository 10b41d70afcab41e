"""A handful of documents that the shipped facts model reads, for runs of data=texts."""

from __future__ import annotations

SHORT: list[dict[str, str]] = [
    {"prompt": "The month after May is", "completion": " June."},
    {"text": "Grass is green, and the sky is blue."},
    {"text": "Two and two make four."},
    {"text": "The capital of Italy is Rome."},
    {"text": "Snow is white."},
]


def documents(repeats: int = 1) -> list[dict[str, str]]:
    """Six documents, the first of them as many times as long."""
    return [{"text": " ".join(["The capital of France is Paris."] * repeats)}, *SHORT]
