"""Matched controls have the lists' counts of distinct neurons per layer, for every r, and nothing else in common."""

from __future__ import annotations

import torch

from twinlens.attribution.evaluation.controls import matched_list


def test_distinct_neurons_per_layer_match_for_every_r() -> None:
    n_layers, n_neurons, top_k = 3, 7, 12
    generator = torch.Generator().manual_seed(0)
    layer = torch.randint(0, n_layers, (20, top_k), generator=generator, dtype=torch.int32)
    unit = torch.randint(0, n_neurons, (20, top_k), generator=generator, dtype=torch.int32)
    layer[:, -2:] = unit[:, -2:] = -1
    index = torch.arange(20) + 5
    drawn_layer, drawn_unit = matched_list(layer, unit, n_layers, n_neurons, index, 1)
    assert torch.equal(drawn_layer, layer)
    assert drawn_unit.dtype == unit.dtype
    assert not torch.equal(drawn_unit, unit)
    for row in range(20):
        before = list(zip(layer[row].tolist(), unit[row].tolist(), strict=True))
        after = list(zip(layer[row].tolist(), drawn_unit[row].tolist(), strict=True))
        assert after[-2:] == [(-1, -1)] * 2
        # entries that name the same neuron still do, others still do not
        assert [before.index(entry) for entry in before] == [after.index(entry) for entry in after]
        assert all(-1 <= u < n_neurons for _, u in after)


def test_a_control_depends_on_seed_and_example_alone() -> None:
    layer = torch.zeros(6, 5, dtype=torch.int32)
    unit = torch.arange(5, dtype=torch.int32).repeat(6, 1)
    index = torch.arange(6)
    _, drawn = matched_list(layer, unit, 2, 30, index, 0)
    assert torch.equal(matched_list(layer[2:4], unit[2:4], 2, 30, index[2:4], 0)[1], drawn[2:4])
    assert not torch.equal(matched_list(layer, unit, 2, 30, index, 1)[1], drawn)
    assert len({tuple(row) for row in drawn.tolist()}) == 6


def test_every_neuron_of_the_layer_is_as_likely() -> None:
    index = torch.arange(6000)
    layer, unit = torch.ones(6000, 1, dtype=torch.int32), torch.full((6000, 1), 3, dtype=torch.int32)
    counts = matched_list(layer, unit, 2, 6, index, 0)[1].flatten().bincount(minlength=6)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_neurons_of_experts_are_drawn_among_those_that_the_example_has() -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(5, 2, 12, generator=generator) < 0.5
    layer = torch.tensor([0, 1] * 6).repeat(5, 1)
    unit = torch.stack([torch.randperm(12, generator=generator) for _ in range(5)])
    index = torch.arange(5)
    same_layer, drawn = matched_list(layer, unit, 2, 12, index, 3, present=present)
    assert torch.equal(same_layer, layer)
    rows = index[:, None]
    assert torch.equal(present[rows, layer, drawn], present[rows, layer, unit])
    assert all(len(set(zip(a, b, strict=True))) == 12 for a, b in zip(layer.tolist(), drawn.tolist(), strict=True))
    everywhere = matched_list(layer, unit, 2, 12, index, 3, present=torch.ones_like(present))[1]
    assert torch.equal(everywhere, matched_list(layer, unit, 2, 12, index, 3)[1])
