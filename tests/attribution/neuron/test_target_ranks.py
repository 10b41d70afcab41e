"""Ranks of targets equal plain counting; what is handed in gives the same lists as what is computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, case
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.static_scores import best_neurons
from twinlens.attribution.neuron.target_ranks import TargetRanks, bare_readout, target_ranks, values_of


def counted(case_, values: Tensor, targets: Tensor) -> Tensor:
    """One target at a time, the whole vocabulary at once, float64: [targets, units]."""
    scores = case_.engine.final_direction(values).double() @ case_.head.weight.double().T
    return torch.stack([1 + (scores > scores[:, [target]]).sum(1) for target in targets.tolist()])


@pytest.mark.parametrize("name", FAMILIES)
def test_ranks_equal_counting_whatever_the_budget(name: str) -> None:
    c = case(name)
    targets = torch.arange(0, c.engine.output_weight.shape[0], 3)
    values = c.engine.values(1)
    expected = counted(c, values, targets)
    for budget in (PLENTY, 10_000, 1):
        assert torch.equal(target_ranks(bare_readout(c.engine, targets), values, targets, budget), expected)
    assert int(expected.min()) == 1
    assert int(expected.max()) > 40


def test_equal_outputs_share_a_rank_and_a_target_never_outranks_itself() -> None:
    c = case("gpt2")
    weight = c.engine.output_weight
    readout = bare_readout(c.engine, torch.arange(len(weight)))
    doubled = type(readout)(
        readout.direction, readout.scale, readout.target, readout.head, weight[:1].expand_as(weight).contiguous()
    )
    ranks = target_ranks(doubled, c.engine.values(0), torch.tensor([5]), PLENTY)
    assert bool((ranks >= 1).all())
    zero = torch.zeros(2, c.engine.hidden_size)
    assert target_ranks(readout, zero, torch.tensor([0, 7]), PLENTY).tolist() == [[1, 1], [1, 1]]


def known(case_, site: str, targets: Tensor) -> TargetRanks:
    engine = case_.engine
    n_units = engine.n_neurons if site == "ffn" else engine.n_heads * engine.head_dim
    index = torch.arange(engine.n_layers * n_units)
    values = values_of(engine.values if site == "ffn" else engine.attention_values, n_units, index)
    ranks = target_ranks(bare_readout(engine, targets), values, targets, PLENTY)
    return TargetRanks(targets, ranks.int().unflatten(1, (engine.n_layers, n_units)))


@pytest.mark.parametrize("score", ["inverse_rank", "coefficient_inverse_rank"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_known_ranks_give_the_lists_of_computed_ones(name: str, score: str) -> None:
    c = case(name)
    for site, units in (("ffn", ffn_units(c.engine, c.states)), ("attn", attention_units(c.engine, c.states))):
        ranks = known(c, site, torch.cat([c.target, torch.tensor([1, 2])]).unique())
        computed = best_neurons(c.readout(), units, score, 9, PLENTY)
        given = best_neurons(c.readout(), units, score, 9, PLENTY, ranks=ranks.of(c.target))
        assert torch.equal(computed.score, given.score)
        assert torch.equal(computed.layer, given.layer)
        assert torch.equal(computed.unit, given.unit)


def test_ranks_handed_in_are_read_and_other_targets_are_computed() -> None:
    c = case("gpt2")
    batch = {**c.batch, "target": c.target, "index": torch.arange(len(c.target))}
    method = NeuronScore("inverse_rank", site="both", top_k=6)
    plain = method.attribute(c.engine, batch, PLENTY)
    assert method.rank_sites == ("ffn", "attn")
    sites = {site: known(c, site, c.target.unique()) for site in method.rank_sites}
    same = method.with_ranks(sites).attribute(c.engine, batch, PLENTY)
    assert torch.equal(plain.unit, same.unit)
    assert torch.equal(plain.score, same.score)
    # wrong ranks show that they are read where they are known, and only there
    wrong = {site: TargetRanks(found.targets, torch.full_like(found.ranks, 1000)) for site, found in sites.items()}
    assert float(method.with_ranks(wrong).attribute(c.engine, batch, PLENTY).score.max()) == pytest.approx(1e-3)
    # examples go together by their length where both sites are read: one FFN part holds all of them
    ffn, first = NeuronScore("inverse_rank", top_k=6), sites["ffn"]
    elsewhere = {"ffn": TargetRanks(first.targets[:1], first.ranks[:1] + 1000)}
    assert len(c.target.unique()) > 1
    given = ffn.with_ranks(elsewhere).attribute(c.engine, batch, PLENTY)
    assert torch.equal(given.score, ffn.attribute(c.engine, batch, PLENTY).score)
    assert NeuronScore("coefficient").rank_sites == ()
