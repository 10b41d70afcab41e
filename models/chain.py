"""The chain of a decoder's blocks, in which the output of each is the input of the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from twinlens.models.block_probe import first_tensor, same


@torch.no_grad()
def blocks_of(backbone: Any) -> nn.ModuleList | None:
    """The blocks of a decoder, found in one forward over a few tokens; None: it has no such chain."""
    lists = [part for part in backbone.modules() if isinstance(part, nn.ModuleList)]
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def keep(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        read = args[0] if args else kwargs.get("hidden_states")
        written = first_tensor(output)
        if isinstance(read, Tensor) and written is not None and read.shape == written.shape and read.dim() == 3:
            seen.setdefault(module, []).append((read, written))

    handles = [m.register_forward_hook(keep, with_kwargs=True) for each in lists for m in dict.fromkeys(each)]
    try:
        backbone(**example_batch(backbone), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    chains = [each for each in lists if _is_chain(each, seen)]
    return max(chains, key=len, default=None)


def _is_chain(modules: nn.ModuleList, seen: dict[nn.Module, list[tuple[Tensor, Tensor]]]) -> bool:
    if not len(modules) or any(len(seen.get(module, ())) != 1 for module in modules):
        return False
    calls = [seen[module][0] for module in modules]
    return all(same(before[1], after[0], 1e-6) for before, after in zip(calls, calls[1:], strict=False))


def example_batch(backbone: Any, batch: int = 1, tokens: int = 5) -> dict[str, Tensor]:
    """Token ids that every model knows."""
    device = next(backbone.parameters()).device
    vocabulary = backbone.get_input_embeddings().num_embeddings
    ids = (3 + torch.arange(batch * tokens, device=device).view(batch, tokens)) % vocabulary
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
