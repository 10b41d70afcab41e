"""Naive loops for the second paper's evaluations: every neuron of one sentence scored, sorted and counted in Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from tests.oracles_neuron_level import attention_vector, ffn_score, lp
from twinlens.attribution.evaluation.neuron_level.sentences import METRICS
from twinlens.attribution.neuron.interventions import zeroed_metrics

PLENTY = 1 << 32


def ffn_increases(c: Any, row: int) -> dict[tuple[int, int], float]:
    """(layer, unit) → increase of every FFN neuron."""
    target = int(c.target[row])
    return {
        (layer, unit): ffn_score(c.anatomy, c.head, c.parts[row], layer, unit, target, "logprob_increase")
        for layer in range(c.engine.n_layers)
        for unit in range(c.engine.n_neurons)
    }


def attention_increases(c: Any, row: int) -> dict[tuple[int, int, int], float]:
    """(layer, head · head_dim + dim, position among the sentence's tokens) → increase."""
    parts, target, size = c.parts[row], int(c.target[row]), c.engine.head_dim
    found = {}
    for layer in range(c.engine.n_layers):
        base = parts.entering[layer][-1]
        before = lp(c.anatomy, c.head, base, parts.leaving[-1], target)
        for unit in range(c.engine.n_heads * size):
            for position in range(len(parts.output)):
                added = attention_vector(c.anatomy, parts, layer, unit // size, unit % size, position)
                after = lp(c.anatomy, c.head, base + added, parts.leaving[-1], target)
                found[layer, unit, position] = after - before
    return found


def best(scores: dict, k: int) -> list:
    """Keys of the k best."""
    return sorted(scores, key=lambda key: -scores[key])[:k]


def best_distinct(scores: dict[tuple[int, int, int], float], k: int) -> list[tuple[int, int]]:
    """The first k distinct (layer, unit) of the sorted entries."""
    seen: list[tuple[int, int]] = []
    for layer, unit, _ in best(scores, len(scores)):
        if (layer, unit) not in seen:
            seen.append((layer, unit))
    return seen[:k]


def zeroed(c: Any, row: int, ffn: list[tuple[int, int]] = (), attention: list[tuple[int, int]] = ()) -> list[float]:  # type: ignore[assignment]
    """The three metrics of one sentence without the named neurons."""
    masks = []
    for neurons, width in ((ffn, c.engine.n_neurons), (attention, c.engine.n_heads * c.engine.head_dim)):
        mask = torch.zeros(1, c.engine.n_layers, width, dtype=torch.bool)
        for layer, unit in neurons:
            mask[0, layer, unit] = True
        masks.append(mask)
    own = c.batch["attention_mask"][row].bool()
    batch = {"input_ids": c.batch["input_ids"][row][own][None], "attention_mask": torch.ones(1, int(own.sum())).long()}
    found = zeroed_metrics(c.engine, batch, c.target[row : row + 1], *masks, PLENTY)
    return [float(getattr(found, name)) for name in METRICS]


def shared(lists: list[list[Any]], share: float) -> set:
    """Entries of more than `share` of the lists."""
    counts = Counter(entry for entries in lists for entry in set(entries))
    return {entry for entry, count in counts.items() if count > share * len(lists)}
