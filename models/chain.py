"""The chain of a decoder's blocks, in which the output of each is the input of the next, and what lies behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from twinlens.models.block_probe import Call, first_tensor, is_linear, recording_calls, same
from twinlens.models.expert_weights import is_experts
from twinlens.models.forwards import backbone_arguments


@dataclass(frozen=True)
class Tail:
    """What lies between the last block and the backbone's output.

    Attributes:
        norm: reads the last block's output; None: nothing does.
        projection: linear map behind it; None: there is none.
    """

    norm: nn.Module | None
    projection: nn.Module | None


@dataclass(frozen=True)
class Chain:
    """Blocks in order, what lies behind them, and a call of each.

    Attributes:
        blocks, tail: modules of the model.
        calls: of every block in a forward over a few tokens with written-out attention, residual streams included.
    """

    blocks: nn.ModuleList
    tail: Tail
    calls: list[Call]


@torch.no_grad()
def chain_of(backbone: Any) -> Chain | None:
    """The blocks of a decoder, found in a forward over a few tokens; None: it has no such chain."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def keep(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        read = first_tensor(args) if args else kwargs.get("hidden_states")
        written = first_tensor(output)
        if isinstance(read, Tensor) and written is not None and read.dim() == written.dim() == 3:
            seen.setdefault(module, []).append((read, written))

    handles = [module.register_forward_hook(keep, with_kwargs=True) for module in backbone.modules()]
    batch = example_batch(backbone, 2, 7)
    arguments = backbone_arguments(backbone, batch)
    try:
        final = getattr(backbone(**arguments, use_cache=False), "last_hidden_state", None)
    finally:
        for handle in handles:
            handle.remove()
    lists = [part for part in backbone.modules() if isinstance(part, nn.ModuleList) and _is_chain(part, seen)]
    if not lists or final is None:
        return None
    blocks = max(lists, key=len)
    return Chain(blocks, _tail(backbone, blocks, seen, final), _calls(backbone, blocks, arguments))


def _calls(backbone: Any, blocks: nn.ModuleList, arguments: dict[str, Tensor]) -> list[Call]:
    """A call of each block with a cache, or without where the model takes none of the plain kind."""
    calls: list[Call] = []
    with eagerly(backbone), recording_calls(blocks, calls, streams=True):
        try:
            backbone(**arguments, past_key_values=DynamicCache(), use_cache=True)
        except Exception:
            calls.clear()
            backbone(**arguments, use_cache=False)
    return calls


def _is_chain(modules: nn.ModuleList, seen: dict[nn.Module, list[tuple[Tensor, Tensor]]]) -> bool:
    if not len(modules) or any(len(seen.get(module, ())) != 1 for module in modules):
        return False
    calls = [seen[module][0] for module in modules]
    joined = all(same(before[1], after[0], 1e-6) for before, after in pairwise(calls))
    return joined and all(read.shape == written.shape for read, written in calls)


def _tail(
    backbone: Any, blocks: nn.ModuleList, seen: dict[nn.Module, list[tuple[Tensor, Tensor]]], final: Tensor
) -> Tail:
    """The modules through which the last block's output becomes the backbone's; a check follows elsewhere."""
    last = seen[blocks[-1]][0][1]
    inside = {part for block in blocks for part in block.modules()}
    steps = [(m, *call) for m, calls in seen.items() if m not in inside and m is not backbone for call in calls]
    if same(last, final, 1e-6):
        return Tail(None, None)
    for module, read, written in steps:
        if same(read, last, 1e-6) and same(written, final, 1e-6):
            return Tail(None, module) if is_linear(module) else Tail(module, None)
    for norm, read, between in steps:
        for projection, entering, written in steps:
            through = same(read, last, 1e-6) and same(entering, between, 1e-6) and same(written, final, 1e-6)
            if through and is_linear(projection):
                return Tail(norm, projection)
    return Tail(None, None)


@contextmanager
def eagerly(backbone: Any) -> Iterator[None]:
    """Attention weights written out, and experts in plain loops, while it lasts."""
    usual = backbone.config._attn_implementation
    backbone.set_attn_implementation("eager")
    configs = {id(part.config): part.config for part in backbone.modules() if is_experts(part)}
    before = {number: config._experts_implementation_internal for number, config in configs.items()}
    try:
        for config in configs.values():  # the faster ones have no kernel for double precision
            config._experts_implementation_internal = "eager"
        yield
    finally:
        for number, config in configs.items():
            config._experts_implementation_internal = before[number]
        backbone.set_attn_implementation(usual)


def example_batch(backbone: Any, batch: int = 1, tokens: int = 5) -> dict[str, Tensor]:
    """Token ids that the model knows, without padding."""
    device = next(backbone.parameters()).device
    vocabulary = backbone.config.get_text_config().vocab_size
    ids = (3 + torch.arange(batch * tokens, device=device).view(batch, tokens)) % vocabulary
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
