"""Matrices shared out between two processes: read in any order they are whole, and few of them are at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from attribution.gradients.blocks import example_blocks
from attribution.gradients.tape import recording
from attribution.neuron.ig import IntegratedGradients
from callbacks.gathering import KEPT, Gathering
from callbacks.sharded import blocks_of, matrices_of, shard, spread
from models.anatomy import build_anatomy
from models.last_token import LastTokenEngine
from models.linear_layers import linear_layers
from models.residual_identities import build_residual
from tests.families import ALL_MODELS, N_CLASSES, linear_head, random_batch, tiny_backbone

PATIENCE = 300
"""Seconds until processes that wait for each other count as hanging."""


class Owner(nn.Module):
    """A language model and its readout, as the strategy finds them."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = tiny_backbone(name)
        self.head = linear_head(self.backbone)


def computed(owner: Owner, seed: int) -> dict[str, Tensor]:
    """What passes of both lenses take from a model, over a batch of its own for every seed."""
    batch = random_batch([7, 5, 9], seed=seed)
    engine = LastTokenEngine(build_anatomy(owner.backbone), owner.head)
    scores = IntegratedGradients(n_steps=3, top_k=5).attribute(engine, batch, 2**24)
    found = {"ig": scores.score, "units": scores.unit}
    residual = build_residual(build_anatomy(owner.backbone), owner.head)
    found["values"] = residual.values(1).clone()
    found["scores"] = residual.states(batch, attention=False).scores
    layers = linear_layers(owner.backbone, owner.head, "all")

    def keep(number: int, inputs: Tensor, deltas: Tensor) -> None:
        found[layers[number].name] = example_blocks(inputs, deltas, 3)

    with recording(layers) as tape:
        hidden = owner.backbone(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
        logits = owner.head(hidden.last_hidden_state[:, -1])
        tape.gradients(logits, torch.ones_like(logits), keep)
    return found


def compare(rank: int, world: int, place: str, names: list[str]) -> None:
    """In one of the processes; the second has twice as many batches as the first."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=world)
    for name in names:
        owner = Owner(name)
        seeds = range(10 * rank, 10 * rank + 1 + rank)
        expected = [computed(owner, seed) for seed in seeds]
        shapes = {key: part.shape for key, part in owner.backbone.named_parameters()}
        numbers = sum(shape.numel() for shape in shapes.values())
        gathering = spread(owner, torch.device("cpu"))
        assert gathering is not None
        assert spread(owner, torch.device("cpu")) is gathering, "once is enough"
        assert sum(parameter.numel() for parameter in owner.backbone.parameters()) < numbers / 4
        with gathering.saving_references():
            for seed, parts in zip(seeds, expected, strict=True):
                got = computed(owner, seed)
                assert gathering.n_whole <= KEPT
                for key, value in parts.items():
                    torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-6, msg=f"{name}: {key}")
        gathering.serve()
        assert all(owner.backbone.get_submodule(key.rpartition(".")[0]) is not None for key in shapes)
    distributed.destroy_process_group()


def test_two_processes_compute_what_one_does_each_in_its_own_order(tmp_path: Path) -> None:
    context: Any = multiprocessing.spawn(compare, (2, str(tmp_path / "meet"), ALL_MODELS), nprocs=2, join=False)
    waited = 0
    while not context.join(timeout=5):
        waited += 5
        if waited >= PATIENCE:
            for process in context.processes:
                process.kill()
            pytest.fail("the processes wait for each other")


@pytest.fixture
def alone(tmp_path: Path) -> Any:
    """A process group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_backward_gathers_again_and_keeps_no_block_whole(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[int] = []
    gather = Gathering._gather
    monkeypatch.setattr(
        Gathering, "_gather", lambda self, unit, rank: (gathered.append(unit), gather(self, unit, rank))
    )
    linears = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(6))
    whole = [linear.weight.detach().clone() for linear in linears]
    gathering = Gathering(
        [[(linear, "weight")] for linear in linears], torch.device("cpu"), nn.Parameter(torch.ones(1))
    )
    inputs = torch.randn(2, 4, requires_grad=True)
    with gathering.saving_references():
        hidden = inputs
        for linear in linears:
            hidden = torch.tanh(linear(hidden))
            assert gathering.n_whole <= KEPT
        assert gathered == [0, 1, 2, 3, 4, 5]
        (got,) = torch.autograd.grad(hidden.sum(), inputs)
    assert gathered[6:] == [3, 2, 1, 0], "the last two were there still"
    expected = inputs
    for weight in whole:
        expected = torch.tanh(expected @ weight.T)
    torch.testing.assert_close(got, torch.autograd.grad(expected.sum(), inputs)[0])
    assert gathering.n_whole <= KEPT


def test_a_module_stays_of_its_class(alone: None) -> None:
    linear = nn.Linear(3, 2)
    Gathering([[(linear, "weight")]], torch.device("cpu"), linear.bias)
    assert isinstance(linear, nn.Linear)
    assert linear.weight.shape == (2, 3)
    assert dict(linear.named_parameters()).keys() == {"bias"}


@pytest.mark.parametrize("name", ALL_MODELS)
def test_vectors_and_a_shared_readout_stay_whole(name: str, alone: None) -> None:
    backbone = tiny_backbone(name)
    embedding = backbone.get_input_embeddings()
    head = nn.Linear(embedding.weight.shape[1], N_CLASSES)
    head.weight = embedding.weight
    owner = nn.Module()
    owner.backbone, owner.head = backbone, head
    inside = sum(len(matrices_of(block, set())) for block in blocks_of(backbone))
    spread(owner, torch.device("cpu"))
    left = dict(backbone.named_parameters())
    assert any(parameter is head.weight for parameter in left.values())
    assert all(parameter.dim() == 1 for key, parameter in left.items() if ".0." in key)
    assert inside > 0


def test_a_head_that_is_the_embedding_cannot_be_fitted_apart() -> None:
    from attribution.base import UserError

    backbone = tiny_backbone("gpt2")
    head = SimpleNamespace(parameters=lambda: iter(backbone.get_input_embeddings().parameters()))
    owner = nn.Module()
    owner.backbone, owner.name = backbone, "gpt2"
    vars(owner)["head"] = head
    with pytest.raises(UserError, match=r"trainer=fsdp cannot train model=gpt2.*trainer=ddp"):
        shard(owner, None)
