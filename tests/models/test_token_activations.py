"""Activations at every token equal those of plain forwards over each text alone: both paddings, windows, families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families import tiny_backbone
from twinlens.data.document_batches import DocumentCollator
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.token_activations import token_activations

SPECIAL = 1
WINDOW = 6
TEXTS = [[1, 7, 9, 11], [1, 5, 8, 3, 4, 12, 1, 9, 33, 21], [1, 14], [1, 6, 1, 9, 9, 2, 17]]


def plain(backbone: Any, family: str, ids: list[int], units: dict[int, list[Tensor]]) -> dict[tuple[int, int], Tensor]:
    """Of one text read window by window by hooks on the modules that the family names, [tokens, units]."""
    seen: dict[tuple[int, int], list[Tensor]] = {}
    for start in range(0, len(ids), WINDOW):
        handles = []
        for layer in range(len(units[0])):
            if family == "llama":
                modules = (backbone.layers[layer].mlp.down_proj, backbone.layers[layer].self_attn.o_proj)
            else:
                modules = (backbone.h[layer].mlp.c_proj, backbone.h[layer].attn.c_proj)
            for site, module in enumerate(modules):
                handles.append(
                    module.register_forward_pre_hook(
                        lambda m, args, key=(site, layer): seen.setdefault(key, []).append(args[0][0])
                    )
                )
        with torch.no_grad():
            backbone(torch.tensor([ids[start : start + WINDOW]]))
        for handle in handles:
            handle.remove()
    return {(site, layer): torch.cat(parts)[:, units[site][layer]] for (site, layer), parts in seen.items()}


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_equal_to_plain_forwards(family: str, side: str, size: int) -> None:
    backbone = tiny_backbone(family)
    n_layers = backbone.config.num_hidden_layers
    empty, some = torch.tensor([], dtype=torch.int64), torch.tensor([3, 11, 20])
    units = {0: [some, empty, some][:n_layers], 1: [empty, some, some][:n_layers]}
    collate = DocumentCollator(0, side, WINDOW)
    found: dict[tuple[int, int, int], tuple[Tensor, Tensor, Tensor]] = {}
    rows = [{"index": row, "label": -1, "input_ids": ids, "counts": [True] * len(ids)} for row, ids in enumerate(TEXTS)]
    for start in range(0, len(rows), size):
        batch = collate(rows[start : start + size])

        def take(
            site: int, layer: int, activation: Tensor, counts: Tensor, place: Tensor, index: Tensor = batch["index"]
        ) -> None:
            for at, row in enumerate(index.tolist()):
                found[row, site, layer] = activation[at], counts[at], place[at]

        token_activations(build_anatomy(backbone), batch, units, torch.tensor([SPECIAL]), take)
    for row, ids in enumerate(TEXTS):
        for (site, layer), expected in plain(backbone, family, ids, units).items():
            activation, counts, place = found[row, site, layer]
            assert [ids[position] for position in place[counts].tolist()] == [
                token for token in ids if token != SPECIAL
            ]
            torch.testing.assert_close(activation[counts], expected[place[counts]], rtol=1e-4, atol=1e-5)
