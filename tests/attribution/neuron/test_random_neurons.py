"""Random neurons: distinct, seeded, and independent of the batch."""

from __future__ import annotations

import pytest
import torch

from tests.families import tiny_engine
from twinlens.attribution.neuron.random_neurons import RandomNeurons


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
