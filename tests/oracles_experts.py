"""Mixtures of experts token by token and expert by expert: what stands where a dense model has its down-projection.

Of twinlens it knows which modules are the experts, the shared expert's down-projection and its gate, and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from twinlens.models.anatomy import Anatomy


def plain_downs(anatomy: Anatomy) -> list[Any]:
    """For every block what `PlainMixture` is, or its own linear map with neurons to fill up."""
    if anatomy.experts is None:
        return [anatomy.down_projection(block) for block in anatomy.blocks]
    found: list[Any] = []
    for block, part in zip(anatomy.blocks, anatomy.structure.parts, strict=True):
        assert part is not None
        assert part.mlp is not None
        if part.experts is None:
            found.append(PlainDense(block.get_submodule(part.mlp.projection or ""), anatomy.n_neurons))
        else:
            found.append(PlainMixture(block, part.experts, anatomy.n_neurons))
    return found


class _Hooked:
    """Hooks that get the neurons of every token, [tokens, neurons]."""

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> Any:
        """The hook may put other neurons in their place."""
        return self.watch(hook, lambda neurons, output: output)

    def register_forward_hook(self, hook: Callable[..., Any], with_kwargs: bool = False) -> Any:
        """The hook sees neurons and output."""
        extra: tuple[Any, ...] = ({},) if with_kwargs else ()

        def see(neurons: Tensor, output: Tensor) -> Tensor:
            hook(self, (neurons,), *extra, output)
            return output

        return self.watch(lambda m, args: None, see)

    def watch(self, before: Callable[..., Any], behind: Callable[[Tensor, Tensor], Tensor]) -> Any:
        raise NotImplementedError


class PlainDense(_Hooked):
    """A linear map, with neurons to fill up that write nothing."""

    def __init__(self, module: Any, width: int) -> None:
        self.module = module
        self.rest = width - module.in_features

    def rows(self) -> Tensor:
        return pad(self.module.weight.T, (0, 0, 0, self.rest))

    def watch(self, before: Callable[..., Any], behind: Callable[[Tensor, Tensor], Tensor]) -> Any:
        def replaced(module: Any, args: tuple, output: Tensor) -> Tensor:
            neurons = pad(args[0], (0, self.rest))
            found = before(self, (neurons,))
            if found is not None:
                own = found[0][..., : module.in_features]
                output = nn.functional.linear(own, module.weight, module.bias)
            return behind(neurons, output)

        return self.module.register_forward_hook(replaced)


class PlainMixture(_Hooked):
    """A mixture whose output is computed anew, one token and one expert at a time, from neurons times values."""

    def __init__(self, block: Any, names: Any, width: int) -> None:
        self.part = block.get_submodule(names.part)
        self.experts = block.get_submodule(names.experts)
        self.scale = names.scale
        self.shared = [
            (block.get_submodule(s.projection), s.scale, None if s.gate is None else block.get_submodule(s.gate))
            for s in names.shared
        ]
        self.width = width

    def _stored(self, name: str) -> Tensor:
        """Weights as [experts, outputs, inputs]."""
        weight = getattr(self.experts, name)
        return weight.transpose(1, 2) if self.experts.is_transposed else weight

    def rows(self) -> Tensor:
        """Value vectors: columns of each expert's down matrix, then of the shared ones'."""
        columns = [column for expert in self._stored("down_proj") for column in expert.T]
        columns += [column for module, _, _ in self.shared for column in module.weight.T]
        return pad(torch.stack(columns), (0, 0, 0, self.width - len(columns)))

    def watch(self, before: Callable[..., Any], behind: Callable[[Tensor, Tensor], Tensor]) -> Any:
        seen: dict[Any, tuple] = {}
        handles = [self.experts.register_forward_pre_hook(lambda m, args: seen.__setitem__(m, args))]
        for module, _, gate in self.shared:
            handles.append(module.register_forward_pre_hook(lambda m, args: seen.__setitem__(m, args)))
            if gate is not None:
                handles.append(gate.register_forward_hook(lambda m, args, out: seen.__setitem__(m, (out,))))

        def replaced(module: Any, args: tuple, output: Any) -> Any:
            whole = output[0] if isinstance(output, tuple) else output
            neurons, constant = self._neurons(seen)
            found = before(self, (neurons,))
            neurons = neurons if found is None else found[0]
            new = behind(neurons, (neurons @ self.rows() + constant).reshape(whole.shape))
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return _Handles([*handles, self.part.register_forward_hook(replaced)])

    @torch.no_grad()
    def _neurons(self, seen: dict[Any, tuple]) -> tuple[Tensor, Tensor]:
        """Coefficients of all units of every token, and what biases add."""
        hidden, index, weight = seen[self.experts]
        experts, up = self.experts, "gate_up_proj" if self.experts.has_gate else "up_proj"
        units = self._stored("down_proj").shape[2]
        neurons, constant = hidden.new_zeros(len(hidden), self.width), torch.zeros_like(hidden)
        for token in range(len(hidden)):
            for slot in range(index.shape[1]):
                expert = int(index[token, slot])
                made = self._stored(up)[expert] @ hidden[token]
                made = made + getattr(experts, f"{up}_bias")[expert] if experts.has_bias else made
                made = experts._apply_gate(made[None])[0] if experts.has_gate else experts.act_fn(made)
                factor = self.scale * weight[token, slot]
                neurons[token, expert * units : (expert + 1) * units] += factor * made
                if experts.has_bias:
                    constant[token] += factor * experts.down_proj_bias[expert]
            first = len(self._stored("down_proj")) * units
            for module, scale, gate in self.shared:
                factor = scale if gate is None else scale * seen[gate][0].reshape(len(hidden), 1)[token].sigmoid()
                own = seen[module][0].reshape(len(hidden), -1)[token]
                neurons[token, first : first + len(own)] = factor * own
                first += len(own)
                if module.bias is not None:
                    constant[token] += factor * module.bias
        return neurons, constant


class _Handles:
    """Removes several hooks."""

    def __init__(self, handles: list[Any]) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def without_unit(experts: Any, gone: tuple[int, int, int] | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A forward for transformers' experts, one token after the other and autograd's of all of their weights.

    Args:
        experts: of a block.
        gone: token, expert and unit that is 0 between the expert's two matrices; None: nothing is.
    """
    up = "gate_up_proj" if experts.has_gate else "up_proj"
    turn = (lambda weight: weight) if experts.is_transposed else (lambda weight: weight.T)

    def forward(hidden: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        rows = []
        for token in range(len(hidden)):
            total = torch.zeros_like(hidden[token])
            for slot, expert in enumerate(index[token].tolist()):
                made = hidden[token] @ turn(getattr(experts, up)[expert])
                made = made + getattr(experts, f"{up}_bias")[expert] if experts.has_bias else made
                made = experts._apply_gate(made[None])[0] if experts.has_gate else experts.act_fn(made)
                if gone is not None and gone[:2] == (token, expert):
                    kept = torch.ones_like(made)
                    kept[gone[2]] = 0
                    made = made * kept
                written = made @ turn(experts.down_proj[expert])
                written = written + experts.down_proj_bias[expert] if experts.has_bias else written
                total = total + written * weight[token, slot]
            rows.append(total)
        return torch.stack(rows)

    return forward
