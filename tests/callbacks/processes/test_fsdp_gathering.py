"""A model spread over two processes gives what the whole model gives, whatever each process reads and how often."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.decoders import tiny_decoder
from tests.families import ALL_MODELS, linear_head, random_batch, tiny_backbone
from twinlens.attribution.gradients.tape import recording
from twinlens.callbacks.processes.fsdp import gathering_of, spread
from twinlens.callbacks.processes.fsdp_gathering import KEPT, PART
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.forwards import backbone_arguments
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.linear_layers import linear_layers
from twinlens.models.residual_identities import build_residual

TIMEOUT = 900
RESIDUAL = ("gpt2", "gpt_neox", "llama", "gemma", "phi3", "olmo2")
MODELS = ["gpt2", "opt_projected", "gpt_neox", "bloom", "llama", "gemma", "qwen2_sliding", "phi3", "olmo2"]
"""Conv1D, a projection behind the last block, interleaved and fused values, norms behind a part, and plain ones."""


def backbone_of(name: str) -> Any:
    return tiny_backbone(name) if name in ALL_MODELS else tiny_decoder(name).base_model


class Owner(nn.Module):
    """What a classifier is to a strategy."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.backbone = backbone_of(name)
        self.head = linear_head(self.backbone)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        arguments = backbone_arguments(self.backbone, batch)
        return self.head(self.backbone(**arguments, use_cache=False).last_hidden_state[:, -1])


def readings(owner: Owner, autocast: bool) -> dict[str, Tensor]:
    """Forwards, gradients by activations and by weights, and weights as tensors."""
    found: dict[str, Tensor] = {}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        batch = random_batch([7, 4, 6])
        engine = LastTokenEngine(build_anatomy(owner.backbone, 1.0 if autocast else None), owner.head)
        with torch.no_grad():
            states = engine.states(batch)
        found["activation"] = states.activation
        rows = [states.residual[:, :1].float() * scale for scale in (0.5, 0.9)]
        leaves = [row.detach().requires_grad_() for row in rows]
        given = [*leaves, *[None] * (engine.n_layers - 1)]
        scores = engine.score_rows(states, given)
        found["rows"] = scores.detach()
        for number, gradient in enumerate(torch.autograd.grad(scores.float().square().sum(), leaves)):
            found[f"gradient {number}"] = gradient
        layers = linear_layers(owner, owner.head, "all")
        with recording(layers) as tape:
            scores = owner(batch)
            sums: dict[str, Tensor] = {}

            def consume(number: int, inputs: Tensor, deltas: Tensor) -> None:
                sums[layers[number].name] = inputs.float().flatten(0, 1).T @ deltas.float().flatten(0, 1)

            tape.gradients(scores, torch.ones_like(scores), consume)
        found |= sums
        found["value rows"] = engine.values(2).detach().clone()
        found["first value rows"] = engine.values(0).detach().clone()
    if owner.name in RESIDUAL and not autocast:
        residual = build_residual(build_anatomy(owner.backbone), owner.head)
        found["keys"] = residual.mlp_keys(1, torch.arange(5))[0]
        found["attention keys"] = residual.attention_keys(0, torch.arange(5))[0]
        found["attention"] = residual.states(batch).attention_output
    return found


def compare(rank: int, folder: str, names: list[str]) -> None:
    """In each process: read the whole model and the spread one, the second process three times as often."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for name in names:
        for autocast in (False, True) if name in ("gpt2", "llama") else (False,):
            expected = readings(Owner(name), autocast)
            owner = Owner(name)  # nothing has looked into this one
            matrices = sum(p.numel() for p in owner.backbone.parameters() if p.dim() > 1)
            spread(owner, torch.device("cpu"))
            gathering = gathering_of(owner)
            assert gathering is not None
            here = [p.numel() for n, p in owner.backbone.named_parameters() if PART in n]
            assert matrices / 2 <= sum(here) <= matrices / 2 + len(here)
            assert not [p for n, p in owner.backbone.named_parameters() if p.dim() > 1]
            keep, most = gathering._keep, []

            def count(block: int, numbers: Tensor, keep: Any = keep, most: Any = most, g: Any = gathering) -> None:
                keep(block, numbers)
                most.append(len(g.whole))

            gathering._keep = count  # type: ignore[method-assign]
            for _ in range(1 + 2 * rank):
                got = readings(owner, autocast)
                for key, value in expected.items():
                    torch.testing.assert_close(got[key], value, msg=f"{name}: {key}")
            gathering.finish()
            assert max(most) == KEPT
            assert gathering.whole == []
            # after a pass every process reads equally often, here a block each of its own
            torch.testing.assert_close(build_anatomy(owner.backbone, 1.0).value_rows(1 + rank), copy_of(name, 1 + rank))
            gathering.finish()
            if name == "gpt2":
                backward_holds_no_matrix(owner, gathering, autocast)
    torch.distributed.destroy_process_group()


def copy_of(name: str, layer: int) -> Tensor:
    return build_anatomy(backbone_of(name)).value_rows(layer)


def backward_holds_no_matrix(owner: Owner, gathering: Any, autocast: bool) -> None:
    """Between forward and backward no more than the kept blocks are alive, each perhaps in two types."""
    batch = random_batch([5, 5])
    layers = linear_layers(owner, owner.head, "all")[:1]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), recording(layers) as tape:
        scores = owner(batch)
        sizes = {len(gathering._part(block)) * gathering.world_size for block in range(len(gathering._homes))}
        gc.collect()
        alive = {
            tensor.untyped_storage().data_ptr()
            for tensor in gc.get_objects()
            if issubclass(type(tensor), Tensor) and tensor.dim() == 1 and len(tensor) in sizes
        }
        assert 0 < len(alive) <= KEPT * (1 + autocast)
        tape.gradients(scores, torch.ones_like(scores), lambda *_: None)
    gathering.finish()


@pytest.mark.long
@pytest.mark.parametrize("names", [MODELS])
def test_families_read_the_same_spread_over_two_processes(tmp_path: Path, names: list[str]) -> None:
    context = torch.multiprocessing.spawn(compare, (str(tmp_path), names), nprocs=2, join=False)
    assert context is not None
    deadline = time.monotonic() + TIMEOUT
    try:
        while not context.join(1):
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for process in context.processes:  # those that have ended stay as they are
            process.kill()
