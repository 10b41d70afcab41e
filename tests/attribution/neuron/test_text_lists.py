"""Lists at every token of a text equal loops over prefixes alone: both paddings, windows, two families, any pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.families import VOCABULARY, tiny_backbone
from tests.oracles_neuron import integrated_gradients_loop
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.attribution.neuron.text_lists import last_windows, next_tokens, token_lists
from twinlens.data.document_batches import DocumentCollator
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.last_token import LastTokenEngine

WINDOW, STEPS, ENTRIES = 5, 2, 4
TEXTS = [[1, 7, 9], [1, 5, 8, 3, 4, 1, 12, 9], [1, 14]]
COUNTS = [[False, True, True], [False, False, True, True, True, False, True, True], [False, True]]
BUDGET = 2**30


def engine_of(family: str) -> LastTokenEngine:
    """Over a tiny language model."""
    backbone = tiny_backbone(family)
    torch.manual_seed(1)
    head = nn.Linear(backbone.config.hidden_size, VOCABULARY, bias=False).requires_grad_(False)
    return LastTokenEngine(build_anatomy(backbone), head)


def prefixes() -> list[tuple[int, int, list[int], int]]:
    """Of every token that counts: row, position of the token before it, ids before it in its window, its own id."""
    found = []
    for row, (ids, counts) in enumerate(zip(TEXTS, COUNTS, strict=True)):
        for at in range(len(ids)):
            start = at // WINDOW * WINDOW
            if counts[at] and at > start:
                found.append((row, at - 1, ids[start:at], ids[at]))
    return found


def batches(side: str, size: int) -> list[dict[str, Tensor]]:
    rows = [
        {"index": row, "label": -1, "input_ids": ids, "counts": counts}
        for row, (ids, counts) in enumerate(zip(TEXTS, COUNTS, strict=True))
    ]
    collate = DocumentCollator(0, side, WINDOW)
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


@pytest.mark.parametrize(("side", "size", "at_once"), [("right", 3, 2), ("left", 1, 8), ("left", 3, 3)])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_lists_equal_a_loop_over_prefixes(family: str, side: str, size: int, at_once: int) -> None:
    engine, method = engine_of(family), IntegratedGradients(n_steps=STEPS, top_k=10)
    found = [token_lists(method, engine, batch, BUDGET, ENTRIES, at_once) for batch in batches(side, size)]
    index, position = (torch.cat([getattr(part, name) for part in found]).tolist() for name in ("index", "position"))
    score = torch.cat([part.score for part in found])
    nodes, weights = nodes_and_weights("right", STEPS)
    assert list(zip(index, position, strict=True)) == [(row, place) for row, place, _, _ in prefixes()]
    neurons = torch.cat([part.layer * engine.n_neurons + part.unit for part in found])
    for place, (_, _, before, target) in enumerate(prefixes()):
        ids = torch.tensor([before])
        sequence = {"index": torch.tensor([0]), "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        dense = integrated_gradients_loop(engine, [sequence], nodes, weights, target).flatten()
        best = dense.sort(descending=True, stable=True)
        torch.testing.assert_close(score[place], best.values[:ENTRIES], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(dense[neurons[place].long()], best.values[:ENTRIES], rtol=1e-3, atol=1e-6)


def test_texts_without_a_mask_count_all_tokens_but_the_first() -> None:
    batch = {"input_ids": torch.tensor([[0, 5, 6, 7]]), "attention_mask": torch.tensor([[0, 1, 1, 1]])}
    assert [(token.before, token.target, token.position) for token in next_tokens(batch)] == [
        ([5], 6, 0), ([5, 6], 7, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_last_window_is_the_last_that_holds_a_token(side: str) -> None:
    (batch,) = batches(side, 3)
    read = last_windows(batch)
    kept = [row[mask.bool()].tolist() for row, mask in zip(read["input_ids"], read["attention_mask"], strict=True)]
    assert kept == [[1, 7, 9], [1, 12, 9], [1, 14]]
    assert "window" not in read
