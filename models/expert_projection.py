"""The down-projection of a mixture of experts, as one linear map of all experts' units, and dense ones beside it.

Both stand where a module stands: hooks before it get, and may change, the neurons of every token; hooks behind it what
they write. Nothing of the model is changed while there are no hooks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from twinlens.models.adapters import projection_rows
from twinlens.models.block_probe import first_tensor
from twinlens.models.expert_layers import ExpertLoop
from twinlens.models.expert_weights import (
    Routing,
    all_value_rows,
    coefficients,
    expert_sizes,
    routing_of,
    written_of,
)
from twinlens.models.linear_layers import projection_shape
from twinlens.models.mixture import Mixture


class HookedProjection(ABC):
    """Neurons and what they write, with hooks as a module has them.

    Attributes:
        in_features, out_features: neurons, and the width of what they write.
        constant: what the last watched call added beside the neurons, [..., hidden] or [hidden]; None: nothing.
    """

    in_features: int
    out_features: int
    constant: Tensor | None = None

    def __init__(self) -> None:
        self._before: dict[int, Callable[..., Any]] = {}
        self._behind: dict[int, Callable[..., Any]] = {}
        self._watching: list[Any] = []
        self._count = 0

    @abstractmethod
    def _watch(self) -> list[Any]:
        """Hooks on the model's own modules, while somebody watches."""

    @abstractmethod
    def rows(self) -> Tensor:
        """Value vectors, [neurons, hidden]."""

    @abstractmethod
    def __call__(self, activation: Tensor) -> Tensor:
        """What neurons [..., neurons] write, [..., hidden]; without what does not depend on them."""

    @abstractmethod
    def without_neurons(self, activation: Tensor, output: Tensor) -> Tensor:
        """What is written where all neurons are 0, [rows or 1, hidden].

        Args:
            activation: neurons of some rows, [rows, neurons].
            output: what they write, [rows, hidden].
        """

    def register_forward_pre_hook(self, hook: Callable[..., Any], with_kwargs: bool = False) -> _Handle:
        """As of a module; `hook` gets the neurons as the first of its arguments."""
        return self._register(self._before, (lambda m, args: hook(m, args, {})) if with_kwargs else hook)

    def register_forward_hook(self, hook: Callable[..., Any]) -> _Handle:
        """As of a module."""
        return self._register(self._behind, hook)

    def _register(self, hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any]) -> _Handle:
        if not self._watching:
            self._watching = self._watch()
        self._count += 1
        hooks[self._count] = hook
        return _Handle(self, hooks, self._count)

    def forget(self, hooks: dict[int, Callable[..., Any]], number: int) -> None:
        """Remove a hook; with the last one the model's own modules are as before."""
        hooks.pop(number, None)
        if not (self._before or self._behind):
            for handle in self._watching:
                handle.remove()
            self._watching = []

    def edited(self, activation: Tensor) -> Tensor | None:
        """Neurons as the hooks leave them; None: nobody changed them."""
        args: tuple[Any, ...] = (activation,)
        for hook in list(self._before.values()):
            found = hook(self, args)
            if found is not None:
                args = found if isinstance(found, tuple) else (found,)
        return None if args[0] is activation else args[0]

    def passed_on(self, activation: Tensor, output: Tensor) -> Tensor:
        """An output as the hooks behind leave it."""
        for hook in list(self._behind.values()):
            found = hook(self, (activation,), output)
            output = output if found is None else found
        return output


class _Handle:
    """Removes a hook."""

    def __init__(self, owner: HookedProjection, hooks: dict[int, Callable[..., Any]], number: int) -> None:
        self._owner = owner
        self._hooks = hooks
        self._number = number

    def remove(self) -> None:
        """Remove it."""
        self._owner.forget(self._hooks, self._number)


class PaddedProjection(HookedProjection):
    """A dense down-projection among mixtures, whose neurons are more: units that it lacks are 0 and write nothing.

    Args:
        module: the linear map.
        width: neurons of a layer.
    """

    def __init__(self, module: Any, width: int) -> None:
        super().__init__()
        self.module = module
        self.own, self.out_features = projection_shape(module)
        self.in_features = width
        self.constant = None if module.bias is None else module.bias.detach()

    def __call__(self, activation: Tensor) -> Tensor:
        """See `HookedProjection`."""
        return activation[..., : self.own] @ projection_rows(self.module).to(activation.dtype)

    def rows(self) -> Tensor:
        """See `HookedProjection`."""
        return pad(projection_rows(self.module), (0, 0, 0, self.in_features - self.own))

    def without_neurons(self, activation: Tensor, output: Tensor) -> Tensor:
        """See `HookedProjection`."""
        return torch.zeros_like(output[:1]) if self.constant is None else self.constant.to(output)[None]

    def _watch(self) -> list[Any]:
        def before(module: Any, args: tuple) -> tuple | None:
            found = self.edited(pad(args[0], (0, self.in_features - self.own)))
            return None if found is None else (found[..., : self.own], *args[1:])

        def behind(module: Any, args: tuple, output: Tensor) -> Tensor:
            return self.passed_on(args[0], output)

        return [self.module.register_forward_pre_hook(before), self.module.register_forward_hook(behind)]


class MixtureProjection(HookedProjection):
    """A mixture's units as the inputs of one linear map: those of routed experts in turn, then those of shared ones.

    A unit's coefficient is its activation times all that multiplies its expert: the router's weight, a gate, a factor;
    0 where the router sent the token elsewhere. What is written is the mixture's own output, changed by as much as the
    neurons were: coefficients' change times value vectors. The router's weights stay those of the real pass.

    Args:
        block: the block that the mixture lies in.
        mixture: its parts by name.
        width: neurons of a layer; where there are more than the mixture has, the rest are 0.
    """

    def __init__(self, block: Any, mixture: Mixture, width: int) -> None:
        super().__init__()
        self.mixture = mixture
        self.part = block.get_submodule(mixture.part)
        self.experts: Any = block.get_submodule(mixture.experts)
        self.shared: list[Any] = [block.get_submodule(each.projection) for each in mixture.shared]
        self.gates = [None if each.gate is None else block.get_submodule(each.gate) for each in mixture.shared]
        n_experts, units, self.out_features = expert_sizes(self.experts)
        self.sizes = [n_experts * units, *(projection_shape(part)[0] for part in self.shared)]
        self.in_features = width
        self._seen: dict[Any, Any] = {}

    def rows(self) -> Tensor:
        """See `HookedProjection`."""
        parts = [all_value_rows(self.experts), *(projection_rows(part) for part in self.shared)]
        return pad(torch.cat(parts), (0, 0, 0, self.in_features - sum(self.sizes)))

    def __call__(self, activation: Tensor) -> Tensor:
        """See `HookedProjection`."""
        flat = activation.reshape(-1, activation.shape[-1])
        routed, *shared = self._split(flat)
        total = written_of(self.experts, routed.unflatten(1, expert_sizes(self.experts)[:2]))
        for part, own in zip(self.shared, shared, strict=True):
            total = total + own @ projection_rows(part).to(own.dtype)
        return total.reshape(*activation.shape[:-1], -1)

    def without_neurons(self, activation: Tensor, output: Tensor) -> Tensor:
        """See `HookedProjection`: biases of experts come with the router's weights, so that they are a row's own."""
        biased = self.experts.has_bias or any(part.bias is not None for part in self.shared)
        return output - self(activation).to(output) if biased else torch.zeros_like(output[:1])

    def zeroing(self, tokens: Tensor, units: Tensor) -> list[Any]:
        """Handles of hooks that make a unit of some tokens 0 where the matrix behind it reads it.

        Other hooks change what the whole mixture writes, which a tape over the experts' matrices does not see.

        Args:
            tokens: numbers among all tokens of the forward, [pairs].
            units: of each, [pairs].
        """
        n_experts, width, _ = expert_sizes(self.experts)
        expert, own = units.div(width, rounding_mode="floor"), units % width

        def of_routed(number: int, seen: Tensor, values: Tensor) -> Tensor:
            mine = expert == number
            gone = ((seen[:, None] == tokens[mine]).float() @ one_hot(own[mine], width).float()).bool()
            return values.masked_fill(gone, 0)

        handles: list[Any] = [ExpertLoop.of(self.experts).edit(of_routed)] if bool((expert < n_experts).any()) else []
        first = n_experts * width
        for part, size in zip(self.shared, self.sizes[1:], strict=True):
            mine = (units >= first) & (units < first + size)
            if bool(mine.any()):
                handles.append(part.register_forward_pre_hook(_zeroing(tokens[mine], units[mine] - first)))
            first += size
        return handles

    def _split(self, flat: Tensor) -> tuple[Tensor, ...]:
        rest = self.in_features - sum(self.sizes)
        return flat.split([*self.sizes, rest] if rest else self.sizes, 1)[: len(self.sizes)]

    def _watch(self) -> list[Any]:
        handles = [self.experts.register_forward_pre_hook(self._keep_routing, with_kwargs=True)]
        for part in {*self.shared, *(gate for gate in self.gates if gate is not None)}:
            handles.append(part.register_forward_hook(self._keep))
        return [*handles, self.part.register_forward_hook(self._behind_part)]

    def _keep_routing(self, module: Any, args: tuple, kwargs: dict) -> None:
        self._seen[module] = routing_of(args, kwargs)

    def _keep(self, module: Any, args: tuple, output: Any) -> None:
        self._seen[module] = (args[0], output)

    def _behind_part(self, module: Any, args: tuple, output: Any) -> Any:
        whole = first_tensor(output)
        assert whole is not None
        exact = torch.autocast(whole.device.type, enabled=False)
        # what depends on edits below is differentiated through the neurons as well
        needed = torch.is_grad_enabled() and whole.requires_grad
        with torch.set_grad_enabled(needed), exact:
            activation = self._coefficients().to(whole.dtype).reshape(*whole.shape[:-1], -1)
        self._seen.clear()
        found = self.edited(activation)
        new = whole
        if found is not None:
            with exact:
                new = whole + self(found - activation).to(whole.dtype)
        new = self.passed_on(activation if found is None else found, new)
        if new is whole:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def _coefficients(self) -> Tensor:
        """Of every token, [tokens, neurons]; `constant` becomes what biases add."""
        routing: Routing = self._seen[self.experts]
        routed, added = coefficients(self.experts, routing)
        parts = [self.mixture.scale * routed.flatten(1)]
        constant = None if added is None else self.mixture.scale * added
        for each, part, gate in zip(self.mixture.shared, self.shared, self.gates, strict=True):
            read = self._seen[part][0].reshape(len(routing.hidden), -1)
            factor: Any = each.scale
            if gate is not None:
                factor = factor * self._seen[gate][1].reshape(len(read), 1).sigmoid()
            parts.append(factor * read)
            if part.bias is not None:
                constant = (0 if constant is None else constant) + factor * part.bias.expand(len(read), -1)
        self.constant = constant
        return pad(torch.cat(parts, 1), (0, self.in_features - sum(self.sizes)))


def _zeroing(tokens: Tensor, units: Tensor) -> Callable[..., tuple[Any, ...]]:
    """A hook that zeroes one input of a linear map for each of some tokens, [pairs] each."""

    def hook(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = args[0].reshape(-1, args[0].shape[-1]).clone()
        rows[tokens, units] = 0
        return rows.reshape(args[0].shape), *args[1:]

    return hook
