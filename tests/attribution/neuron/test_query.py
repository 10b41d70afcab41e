"""Query layers and query neurons equal plain inner products, one contribution at a time."""

from __future__ import annotations

import pytest
import torch

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, Case, case, close
from tests.oracles_neuron_level import keys, query_neuron_share, query_shares
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.bounded_search import top_units
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.query import ValueNeurons, query_bytes, query_layers, query_neurons

K = 5
SITES = ["ffn", "attn"]


def value_neurons(c: Case, site: str) -> ValueNeurons:
    units = (ffn_units if site == "ffn" else attention_units)(c.engine, c.states)
    found = ValueNeurons.of(top_units(c.readout(), units, K, PLENTY), c.states)
    assert found.site == site
    return found


def modes(name: str, site: str) -> list[str]:
    shared_heads = name in ("llama", "qwen2", "gemma")
    return ["corrected"] if shared_heads and site == "attn" else ["corrected", "notebook"]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", FAMILIES)
def test_query_layers_and_neurons_equal_the_loop(name: str, site: str) -> None:
    for padding, mode in [("left", mode) for mode in modes(name, site)] + [("right", "corrected")]:
        c = case(name, padding)
        neurons = value_neurons(c, site)
        layers = query_layers(c.engine, c.batch, neurons, PLENTY, mode)
        units = query_neurons(c.engine, c.batch, neurons, PLENTY, mode)
        assert units.shape == (3, c.engine.n_layers, c.engine.n_neurons)
        for row, parts in enumerate(c.parts):
            expected: dict[tuple[str, int], float] = {}
            first_neurons = torch.zeros(2, 3)
            for k in range(K):
                layer, unit = int(neurons.layer[row, k]), int(neurons.unit[row, k])
                position = int(neurons.column[row, k]) - c.first_token(row)
                weight = float(neurons.weight[row, k])
                shares, _ = query_shares(c.anatomy, parts, layer, unit, position, site, mode == "corrected")
                for source, share in shares.items():
                    expected[source] = expected.get(source, 0.0) + weight * share
                for below in range(2):
                    for n in range(3):
                        first_neurons[below, n] += weight * query_neuron_share(
                            c.anatomy, parts, (layer, unit, position), (below, n), site, mode == "corrected"
                        )
            got = {("embedding", 0): layers.embedding[row], ("constant", 0): layers.constant[row]}
            for layer in range(c.engine.n_layers):
                got["attention", layer], got["mlp", layer] = layers.attention[row, layer], layers.mlp[row, layer]
            # sums that nearly cancel magnify rounding in the notebooks' form
            size = max(abs(value) for value in expected.values()) * (10 if mode == "notebook" else 1)
            for source, value in got.items():
                assert float(value) == pytest.approx(expected.get(source, 0.0), abs=1e-4 * size), (source, mode)
            assert float((units[row, :2, :3] - first_neurons).abs().max()) < 1e-4 * max(size, 1e-3)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_query_neurons_and_bias_sum_to_their_layer(name: str, site: str) -> None:
    c = case(name)
    neurons = value_neurons(c, site)
    layers, units = (f(c.engine, c.batch, neurons, PLENTY) for f in (query_layers, query_neurons))
    down = [c.anatomy.down_projection(block) for block in c.anatomy.blocks]
    if any(module.bias is not None for module in down):
        for module in down:
            module.bias.data, module.kept = torch.zeros_like(module.bias), module.bias.data
        try:
            states = c.engine.states(c.batch)
            unbiased = Case(c.anatomy, c.engine, c.head, c.batch, states, c.target, c.parts)
            neurons = value_neurons(unbiased, site)
            layers, units = (f(c.engine, c.batch, neurons, PLENTY) for f in (query_layers, query_neurons))
        finally:
            for module in down:
                module.bias.data = module.kept
                del module.kept
    assert close(units.sum(-1), layers.mlp, 1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_corrected_keys_reproduce_the_coefficients(name: str) -> None:
    c = case(name)
    parts = c.parts[1]
    size = c.engine.head_dim
    for unit in (0, 2 * size + 1):
        value = parts.value[2][unit // size, 0, unit % size]
        rows, constant = c.engine.attention_keys(2, torch.tensor([unit]))
        x = parts.entering[2][0]
        got = float(rows[0, 0].double() @ x) / float(c.engine.attention_statistic(2, x)) + float(constant[0, 0])
        assert got == pytest.approx(float(value), abs=1e-4)
    rows, _ = c.engine.mlp_keys(1, torch.tensor([4]))
    assert rows.shape[1] == len(keys(c.anatomy, 1, 4, "ffn")) == (2 if c.engine.gated else 1)


def test_shares_are_bounded_where_the_sum_cancels() -> None:
    c = case("gpt2")
    neurons = value_neurons(c, "attn")
    layers = query_layers(c.engine, c.batch, neurons, PLENTY)
    total = layers.embedding.abs() + layers.attention.abs().sum(1) + layers.mlp.abs().sum(1) + layers.constant.abs()
    assert bool((total <= neurons.weight.abs().sum(1) * (1 + 1e-5)).all())


def test_shared_key_heads_have_no_notebook_row() -> None:
    c = case("llama")
    with pytest.raises(UserError, match="use mode=corrected"):
        query_layers(c.engine, c.batch, value_neurons(c, "attn"), PLENTY, "notebook")


def test_budgets_change_nothing_and_too_small_ones_are_refused() -> None:
    c = case("gpt_neox")
    neurons = value_neurons(c, "attn")
    one = query_bytes(c.engine, c.batch["input_ids"].shape[1], K, 32)
    assert close(query_neurons(c.engine, c.batch, neurons, one), query_neurons(c.engine, c.batch, neurons, PLENTY))
    tight, loose = (query_layers(c.engine, c.batch, neurons, budget) for budget in (one, PLENTY))
    assert close(tight.mlp, loose.mlp)
    with pytest.raises(UserError, match="raise memory_budget"):
        query_layers(c.engine, c.batch, neurons, one - 1)


def test_places_that_hold_no_neuron_add_nothing() -> None:
    c = case("llama")
    full = value_neurons(c, "ffn")
    layer = full.layer.clone()
    layer[:, 3:] = -1
    short = ValueNeurons("ffn", layer, full.unit, full.column, full.weight)
    cut = ValueNeurons("ffn", full.layer[:, :3], full.unit[:, :3], full.column[:, :3], full.weight[:, :3])
    assert close(
        query_layers(c.engine, c.batch, short, PLENTY).attention, query_layers(c.engine, c.batch, cut, PLENTY).attention
    )
    assert close(query_neurons(c.engine, c.batch, short, PLENTY), query_neurons(c.engine, c.batch, cut, PLENTY))
