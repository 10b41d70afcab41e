"""Words that two texts share, by which the demo's sentences are checked."""

from __future__ import annotations

import re


def words(text: str) -> set[str]:
    """The distinct words and numbers of a text, in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def word_overlap(claim: str, evidence: str) -> float:
    """Share of the claim's distinct words that the evidence repeats, 0 … 1."""
    claim_words = words(claim)
    return len(claim_words & words(evidence)) / len(claim_words)
