"""Model in the middle of somebody's work, and all that a call could change of it."""

from __future__ import annotations

import copy
from typing import Any

import torch


def in_use(model: Any) -> tuple[Any, list[str]]:
    """A model in the middle of somebody's work, and what its hook has seen."""
    seen: list[str] = []
    model = copy.deepcopy(model).bfloat16().train()
    model.model.layers[0].eval()
    model.model.layers[1].register_forward_hook(lambda module, given, output: seen.append("forward"))
    model.model.embed_tokens.requires_grad_(False)
    model.model.norm.weight.grad = torch.ones_like(model.model.norm.weight)
    return model, seen


def state_of(model: Any) -> dict[str, Any]:
    """All that a call could change."""
    weights = dict(model.named_parameters())
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "places": {name: (id(value), value.data_ptr(), value.dtype, value.device) for name, value in weights.items()},
        "gradients": {name: (value.requires_grad, None if value.grad is None else value.grad.clone())
                      for name, value in weights.items()},
        "buffers": {name: value.clone() for name, value in model.named_buffers()},
        "modes": {name: part.training for name, part in model.named_modules()},
        "hooks": {name: list(part._forward_hooks) for name, part in model.named_modules()},
        "attributes": {name: sorted(vars(part)) for name, part in model.named_modules()},
        "config": model.config.to_dict(),
    }  # fmt: skip


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(value, two[key]) for key, value in one.items())
    if isinstance(one, tuple | list):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)
