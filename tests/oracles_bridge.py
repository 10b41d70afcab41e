"""The bridges as their definitions read: one pair, one entry at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Entries = Sequence[tuple[Any, float]]
"""A neuron list: (neuron, score), best first."""


def dcns(train: Entries, test: Entries, gain: str = "raw", missing: float = 0.0) -> float:
    """Eq. 1 of the first paper for one pair."""
    scores = [score for _, score in train]
    if gain == "zscore":
        mean, spread = math.fsum(scores) / max(1, len(scores)), statistics.pstdev(scores or [0])
        scores = [(score - mean) / spread if max(scores) > min(scores) else 0.0 for score in scores]
    if gain == "flat":
        scores = [1.0 for _ in scores]
    in_test = {neuron for neuron, _ in test}
    terms = [(2 ** scores[m] - 1) / math.log2(m + 2) for m, (neuron, _) in enumerate(train) if neuron in in_test]
    return math.fsum(terms) if terms else missing


def instance_neurons(
    instances: Sequence[tuple[int, float]], train: Sequence[Entries], top_k: int, dedup: bool
) -> list[tuple[Any, float]]:
    """Top-1 neurons of a test's most influential train instances, with the instances' scores."""
    found: list[tuple[Any, float]] = []
    for place, (row, score) in enumerate(instances):
        if len(found) == top_k or (not dedup and place == top_k):
            break
        if row < 0 or score == -math.inf or not train[row]:
            continue
        neuron = train[row][0][0]
        if not dedup or neuron not in [known for known, _ in found]:
            found.append((neuron, score))
    return found


def average_ranks(scores: Sequence[float]) -> list[float]:
    """1 = highest; equal scores share the mean of the ranks they take together."""
    return [sum(o > s for o in scores) + (sum(o == s for o in scores) + 1) / 2 for s in scores]
