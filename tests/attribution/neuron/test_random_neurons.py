"""Random neurons: distinct, seeded, and independent of the batch."""

from __future__ import annotations

import pytest
import torch

from tests.families import tiny_engine
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.attribution.neuron.ranking import ATTENTION


def test_distinct_and_independent_of_the_batch() -> None:
    engine = tiny_engine("gpt2")
    method = RandomNeurons([7], top_k=50)
    together = method.attribute(engine, {"index": torch.tensor([3, 9, 4])}, 1)
    alone = method.attribute(engine, {"index": torch.tensor([9])}, 1)
    address = together.layer * engine.n_neurons + together.unit
    assert torch.equal(address[1], alone.layer[0] * engine.n_neurons + alone.unit[0])
    assert all(len(set(row.tolist())) == 50 for row in address)
    assert not torch.equal(address[0], address[1])
    other = RandomNeurons([8], top_k=50).attribute(engine, {"index": torch.tensor([9])}, 1)
    assert not torch.equal(other.unit, alone.unit)


def test_uniform_over_layers() -> None:
    engine = tiny_engine("gpt2")
    picked = RandomNeurons([0], top_k=10).attribute(engine, {"index": torch.arange(600)}, 1)
    share = torch.bincount(picked.layer.flatten().long(), minlength=3) / picked.layer.numel()
    # 6000 draws: five standard deviations of a third are 0.03
    assert torch.allclose(share, torch.full((3,), 1 / 3), atol=0.03)


def test_several_seeds_must_be_split_first() -> None:
    with pytest.raises(ValueError, match="for_seed"):
        RandomNeurons().attribute(tiny_engine("gpt2"), {"index": torch.arange(2)}, 1)


def test_a_neuron_has_one_score_whatever_the_site() -> None:
    engine = tiny_engine("gpt2")
    batch = {"index": torch.tensor([3, 9])}
    every = engine.n_layers * (engine.n_neurons + engine.n_attention)
    both = RandomNeurons([0], every, "both").attribute(engine, batch, 1)
    for number, site in enumerate(("ffn", "attn")):
        alone = RandomNeurons([0], every, site).attribute(engine, batch, 1)  # type: ignore[arg-type]
        assert both.site is not None
        for row in range(2):
            chosen = both.site[row] == number
            assert torch.equal(both.score[row, chosen], alone.score[row])
            assert torch.equal(both.unit[row, chosen], alone.unit[row])
    attention = RandomNeurons([0], 5, "attn").attribute(engine, batch, 1)
    assert attention.site is not None
    assert bool((attention.site == ATTENTION).all())
    assert int(attention.unit.max()) < engine.n_attention


def test_the_site_is_that_of_the_other_methods() -> None:
    own = RandomNeurons([0])
    ffn, attention = IntegratedGradients(), IntegratedGradients(site="attn")
    assert own.among({"ig": attention, "random_neurons": own}).ranks == "attn"
    assert own.among({"ig": ffn, "other": attention, "random_neurons": own}).ranks == "ffn"
    assert own.among({"random_neurons": own}).ranks == "ffn"
    assert RandomNeurons([0], site="both").among({"ig": attention}).for_seed(0).ranks == "both"
    with pytest.raises(UserError, match="unknown site 'head'"):
        RandomNeurons(site="head")  # type: ignore[arg-type]
