"""Weights and activations of transformers' experts: every expert of a block in one tensor, one form for all types.

`gate_up_proj` is [experts, 2 · units, hidden] and `down_proj` [experts, hidden, units], both turned where the module
says `is_transposed`; there may be biases, and no gate (`up_proj`). See `transformers.integrations.moe`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Routing:
    """What a router hands to experts.

    Attributes:
        hidden: [tokens, hidden].
        index: numbers of the chosen experts, [tokens, chosen]; one behind the last stands for none.
        weight: factors of their outputs, [tokens, chosen].
    """

    hidden: Tensor
    index: Tensor
    weight: Tensor

    def chosen(self, n_experts: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Experts with tokens: number, tokens [rows] and their weights [rows]."""
        for expert in self.index.unique().tolist():
            if 0 <= expert < n_experts:
                token, place = (self.index == expert).nonzero().T
                yield expert, token, self.weight[token, place]


def is_experts(module: nn.Module) -> bool:
    """Whether a module holds experts as transformers' interface does, each behind nothing but its own weights."""
    known = hasattr(type(module), "_apply_gate") and hasattr(module, "is_transposed")
    # its weights are not read, which may lie on several devices
    return known and not getattr(module, "has_post_expert_norm", False)


def routing_of(args: tuple, kwargs: Mapping[str, Any]) -> Routing | None:
    """The routing in a call of experts; None: it is of another form."""
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if len(given) != 3 or any(value.dim() != 2 for value in given):
        return None
    hidden, index, weight = given
    if index.is_floating_point() or not weight.is_floating_point() or index.shape != weight.shape:
        return None
    return Routing(hidden, index, weight) if len(index) == len(hidden) else None


def expert_sizes(module: Any) -> tuple[int, int, int]:
    """Experts, units of each, and the width of what they write."""
    first, second, third = module.down_proj.shape
    return (first, second, third) if module.is_transposed else (first, third, second)


def up_of(module: Any) -> tuple[Tensor, Tensor | None]:
    """What makes the units, [experts, …], and its biases [experts, outputs]."""
    name = "gate_up_proj" if module.has_gate else "up_proj"
    return getattr(module, name), getattr(module, f"{name}_bias", None) if module.has_bias else None


def down_bias(module: Any) -> Tensor | None:
    """Biases behind the units, [experts, hidden]."""
    return module.down_proj_bias if module.has_bias else None


def activated(module: Any, projected: Tensor) -> Tensor:
    """Activations of units from what makes them, [rows, outputs] → [rows, units]."""
    return module._apply_gate(projected) if module.has_gate else module.act_fn(projected)


def multiplied(module: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One expert's linear map of rows [rows, inputs], as the module stores it."""
    out = rows.to(weight.dtype) @ (weight if module.is_transposed else weight.T)
    return out if bias is None else out + bias


def activation_of(module: Any, expert: int, rows: Tensor) -> Tensor:
    """Activations of one expert's units, rows [rows, hidden] → [rows, units]."""
    weight, bias = up_of(module)
    return activated(module, multiplied(module, rows, weight[expert], None if bias is None else bias[expert]))


def value_rows(module: Any, expert: int) -> Tensor:
    """Value vectors of one expert's units, [units, hidden]."""
    return module.down_proj[expert] if module.is_transposed else module.down_proj[expert].T


def coefficients(module: Any, routing: Routing) -> tuple[Tensor, Tensor | None]:
    """Weighted activations of every expert's units, 0 where a token was not sent, and what biases add.

    Returns:
        [tokens, experts, units]; [tokens, hidden], or None: there are no biases.
    """
    n_experts, units, width = expert_sizes(module)
    n_tokens = len(routing.hidden)
    out = routing.hidden.new_zeros(n_tokens, n_experts, units, dtype=module.down_proj.dtype)
    bias = down_bias(module)
    added = None if bias is None else out.new_zeros(n_tokens, width)
    for expert, token, weight in routing.chosen(n_experts):
        found = activation_of(module, expert, routing.hidden[token])
        out[:, expert].index_add_(0, token, (found * weight[:, None]).to(out.dtype))
        if added is not None and bias is not None:
            added.index_add_(0, token, (bias[expert] * weight[:, None]).to(out.dtype))
    return out, added


def written_of(module: Any, coefficient: Tensor) -> Tensor:
    """Coefficients times value vectors, [tokens, experts, units] → [tokens, hidden]; idle experts cost nothing."""
    n_experts, _, width = expert_sizes(module)
    total = coefficient.new_zeros(len(coefficient), width)
    # a coefficient of 0 has a gradient all the same
    every = coefficient.requires_grad
    busy = range(n_experts) if every else (coefficient != 0).any(-1).any(0).nonzero()[:, 0].tolist()
    for expert in busy:
        total = total + coefficient[:, expert] @ value_rows(module, expert).to(coefficient.dtype)
    return total


def expert_outputs(module: Any, routing: Routing) -> Tensor:
    """What the experts write by their weights, [tokens, hidden]: the module's own output, where it is what it seems."""
    coefficient, added = coefficients(module, routing)
    found = written_of(module, coefficient)
    return found if added is None else found + added


def all_value_rows(module: Any) -> Tensor:
    """Value vectors of all experts' units, [experts · units, hidden]."""
    down = module.down_proj
    return (down if module.is_transposed else down.transpose(1, 2)).flatten(0, 1)
