"""Matrices of experts as linear layers, one expert after the other, for gradients of examples.

While somebody records one of them, the experts of its block run as a plain loop in which each matrix stands alone; the
model's own way of computing them comes back with the last hook. An expert sees the tokens that the router sent to it,
which `spread` puts back among all tokens, with zeros elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.protocols import LinearLayer
from twinlens.models.expert_weights import (
    activated,
    down_bias,
    expert_sizes,
    is_experts,
    multiplied,
    routing_of,
    up_of,
)

UP, DOWN = "up", "down"
UnitEdit = Callable[[int, Tensor, Tensor], Tensor]
"""(expert, numbers of the tokens that it sees [rows], its units [rows, units]) → its units, changed."""


class ExpertMatrix(nn.Module):
    """One matrix of one expert; hooks get its inputs, [rows, d_in], with a 1 behind them where there is a bias.

    Args:
        loop: of the block's experts.
        side: `up` or `down`.
        expert: number of the expert.
    """

    def __init__(self, loop: ExpertLoop, side: str, expert: int) -> None:
        super().__init__()
        self._loop = loop
        self._address = (side, expert)

    def register_forward_hook(self, hook: Callable[..., Any], **_: Any) -> Any:  # type: ignore[override]
        """As of a module."""
        return self._loop.register(self._address, hook)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Weights and biases of all experts that it is a part of."""
        for value in self._loop.stored(self._address[0]):
            if isinstance(value, nn.Parameter):
                yield value

    def own(self) -> tuple[Tensor, Tensor | None]:
        """This expert's weight as it is stored, and its bias."""
        weight, bias = self._loop.stored(self._address[0])
        assert weight is not None
        return weight[self._address[1]], None if bias is None else bias[self._address[1]]

    def spread(self, values: Tensor) -> Tensor:
        """Of the tokens that the expert saw in the last forward, [rows, d], among all tokens, [tokens, d]."""
        return self._loop.spread(self._address[1], values)


class ExpertLoop:
    """The experts of a block as a loop, while there are hooks.

    Args:
        module: of transformers' experts interface.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._hooks: dict[tuple[str, int], Callable[..., Any]] = {}
        self._edits: dict[int, UnitEdit] = {}
        self._tokens: dict[int, Tensor] = {}
        self._n_tokens = 0

    @staticmethod
    def of(module: Any) -> ExpertLoop:
        """The loop that computes a module's experts at the moment, else a new one, which does once it has a hook."""
        running = getattr(vars(module).get("forward"), "__self__", None)
        return running if isinstance(running, ExpertLoop) else ExpertLoop(module)

    def stored(self, side: str) -> tuple[Tensor, Tensor | None]:
        """Weights and biases of a side, of all experts."""
        return up_of(self.module) if side == UP else (self.module.down_proj, down_bias(self.module))

    def register(self, address: tuple[str, int], hook: Callable[..., Any]) -> _Removes:
        """Hand one matrix's inputs and outputs to a hook, which may put others in the outputs' place."""
        self._hooks[address] = hook
        self.module.forward = self._forward
        return _Removes(self, self._hooks, address)

    def edit(self, change: UnitEdit) -> _Removes:
        """Change units between an expert's two matrices, so that whoever records the second one sees them changed."""
        number = max(self._edits, default=-1) + 1
        self._edits[number] = change
        self.module.forward = self._forward
        return _Removes(self, self._edits, number)

    def forget(self, hooks: dict[Any, Any], key: Any) -> None:
        """Remove a hook; with the last one the module computes as before."""
        hooks.pop(key, None)
        if not (self._hooks or self._edits):
            vars(self.module).pop("forward", None)
            self._tokens.clear()

    def spread(self, expert: int, values: Tensor) -> Tensor:
        """See `ExpertMatrix.spread`."""
        return values.new_zeros(self._n_tokens, values.shape[1]).index_copy(0, self._tokens[expert], values)

    def _forward(self, *args: Any, **kwargs: Any) -> Tensor:
        routing = routing_of(args, kwargs)
        assert routing is not None, "experts are called with a routing"
        self._n_tokens = len(routing.hidden)
        n_experts, _, width = expert_sizes(self.module)
        total = routing.hidden.new_zeros(self._n_tokens, width)
        for expert in range(n_experts):  # one without tokens as well, whose gradients are zero
            here = routing.index == expert
            self._tokens[expert] = token = here.any(1).nonzero()[:, 0]
            weight = torch.where(here, routing.weight, 0).sum(1)[token]
            projected = self._matrix(UP, expert, routing.hidden[token])
            units = activated(self.module, projected)
            for change in self._edits.values():
                units = change(expert, token, units)
            written = self._matrix(DOWN, expert, units)
            total = total.index_add(0, token, (written * weight[:, None]).to(total.dtype))
        return total

    def _matrix(self, side: str, expert: int, rows: Tensor) -> Tensor:
        weight, bias = self.stored(side)
        output = multiplied(self.module, rows, weight[expert], None if bias is None else bias[expert])
        hook = self._hooks.get((side, expert))
        if hook is None:
            return output
        given = rows if bias is None else torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        found = hook(self.module, (given,), output)
        return output if found is None else found


class _Removes:
    """Removes a hook."""

    def __init__(self, loop: ExpertLoop, hooks: dict[Any, Any], key: Any) -> None:
        self._loop = loop
        self._hooks = hooks
        self._key = key

    def remove(self) -> None:
        """Remove it."""
        self._loop.forget(self._hooks, self._key)


def expert_layers(name: str, module: Any, block: int | None) -> list[LinearLayer]:
    """The matrices of all experts of a module, in the order in which a token goes through them; empty: it holds none.

    They are called as the model calls their weights, with the expert's number behind: `mlp.experts.down_proj.3`. A bias
    counts as one more input, which is 1 where the expert sees a token.

    Args:
        name: of the module.
        module: any.
        block: number of the decoder block that it lies in.
    """
    if not is_experts(module):
        return []
    loop, found = ExpertLoop(module), []
    n_experts, units, width = expert_sizes(module)
    outputs = up_of(module)[0].shape[2 if module.is_transposed else 1]
    for expert in range(n_experts):
        for side, stored, d_in, d_out in (
            (UP, "gate_up_proj" if module.has_gate else "up_proj", width, outputs),
            (DOWN, "down_proj", units, width),
        ):
            matrix = ExpertMatrix(loop, side, expert)
            own = f"{name}.{stored}.{expert}"
            found.append(
                LinearLayer(
                    own, matrix, d_in + bool(module.has_bias), d_out, False, block, matrix.spread, matrix.spread, True
                )
            )
    return found
