"""A copy of one decoder block in double precision, and what its parts read and wrote in a call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Call:
    """Arguments that a block was called with.

    Attributes:
        args: positional, the hidden states first unless they are given by name.
        kwargs: by name.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def hidden(self) -> Tensor:
        """The residual stream that enters, [batch, tokens, hidden]."""
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    def with_hidden(self, hidden: Tensor | None) -> Call:
        """The same call with another residual stream."""
        if self.args:
            return Call((hidden, *self.args[1:]), self.kwargs)
        return Call((), {**self.kwargs, "hidden_states": hidden})

    def changed(self, change: Callable[[Tensor], Any]) -> Call:
        """The same call with every tensor in it changed, at whatever depth."""
        return Call(changed(self.args, change), changed(dict(self.kwargs), change))


def changed(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """A nest of tuples, lists and dicts with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: changed(part, change) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(changed(part, change) for part in value)
    return value


@dataclass(frozen=True)
class Seen:
    """What a module read and wrote in one call.

    Attributes:
        read, written: [tokens, width]; None where it is no such tensor.
        weights: attention weights that it puts out second, [batch, heads, tokens, tokens]; None: it puts out none.
        module: in the copy.
    """

    read: Tensor | None
    written: Tensor | None
    weights: Tensor | None
    module: nn.Module


class BlockProbe:
    """A block whose parts can be watched and replaced, apart from the model.

    Args:
        block: left as it is; its copy is in double precision, or where it cannot run so in single.
        call: one of its calls.

    Attributes:
        seen: what each of its parts read and wrote in that call.
        hidden, written: the block's input and output, [batch, tokens, hidden].
        values: what its attention puts into the cache, [batch, key heads, tokens, head_dim]; None: nothing.
        rounding: relative error below which sums of its numbers count as equal.
    """

    def __init__(self, block: nn.Module, call: Call) -> None:
        self.values: Tensor | None = None
        self.tokens = call.hidden.shape[0] * call.hidden.shape[1]
        try:
            self._copy(block, call, torch.float64)
        except (RuntimeError, TypeError, ValueError):  # numbers of a type of its own inside
            self._copy(block, call, torch.float32)

    def _copy(self, block: nn.Module, call: Call, dtype: torch.dtype) -> None:
        self.rounding = 1e-9 if dtype == torch.float64 else 1e-5
        self.block = copy.deepcopy(block).to(dtype).eval()
        self.call = call.changed(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
        self.hidden = self.call.hidden
        self.parts = {name: part for name, part in self.block.named_modules() if name and not within_adapter(name)}
        self.seen, self.written = self.run(self.hidden)

    @torch.no_grad()
    def run(
        self, hidden: Tensor, replaced: Mapping[str, Callable[[Tensor], Tensor]] | None = None
    ) -> tuple[dict[str, Seen], Tensor]:
        """What every part that is called once reads and writes, and the block's output [batch, tokens, hidden].

        Args:
            replaced: parts whose outputs are changed.
        """
        calls: dict[str, list[Seen]] = {}
        changes = replaced or {}

        def hook(name: str) -> Callable[..., Any]:
            def keep(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
                change, whole = changes.get(name), first_tensor(output)
                if change is not None and whole is not None:
                    new = change(whole)
                    output = (new, *output[1:]) if isinstance(output, tuple) else new
                read = first_tensor(args) if args else first_tensor(tuple(kwargs.values()))
                written = first_tensor(output)
                found = Seen(
                    None if read is None else self.flat(read.clone()),  # whoever comes next may add to it in place
                    None if written is None else self.flat(written.clone()),
                    self.weights_in(output),
                    module,
                )
                calls.setdefault(name, []).append(found)
                return output

            return keep

        handles = [part.register_forward_hook(hook(name), with_kwargs=True) for name, part in self.parts.items()]
        cache = DynamicCache()
        call = self.call.with_hidden(hidden)
        args = tuple(cache if isinstance(value, Cache) else value for value in call.args)
        kwargs = {name: cache if isinstance(value, Cache) else value for name, value in call.kwargs.items()}
        try:
            output = first_tensor(self.block(*args, **kwargs))
        finally:
            for handle in handles:
                handle.remove()
        assert output is not None
        layers: list[Any] = cache.layers
        kept = [layer.values for layer in layers if isinstance(getattr(layer, "values", None), Tensor)]
        self.values = kept[0] if kept and kept[0].dim() == 4 else None
        return {name: each[0] for name, each in calls.items() if len(each) == 1}, output

    def weights_in(self, output: Any) -> Tensor | None:
        """Attention weights beside a module's output."""
        second = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        batch, tokens = self.hidden.shape[:2]
        is_weights = isinstance(second, Tensor) and second.dim() == 4 and second.shape[::2] == (batch, tokens)
        return second if is_weights else None

    def flat(self, tensor: Tensor) -> Tensor | None:
        """Rows of tokens, [tokens, width]; None for what has no such rows."""
        if tensor.dim() not in (2, 3) or tensor.shape[-1] == 0 or tensor.numel() % self.tokens:
            return None
        rows = tensor.reshape(-1, tensor.shape[-1])
        return rows if len(rows) == self.tokens else None


def first_tensor(value: Any) -> Tensor | None:
    """A module's output, or the first of what it puts out."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple | list) and value:
        return value[0] if isinstance(value[0], Tensor) else None
    return getattr(value, "last_hidden_state", None)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map, with or without a low-rank adapter beside it."""
    return isinstance(module, nn.Linear | Conv1D) or hasattr(module, "base_layer")


def functions_in(probe: BlockProbe) -> dict[str, Callable[[Tensor], Tensor]]:
    """Modules without linear maps in them first, then transformers' activations by name."""
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for name, module in probe.parts.items():
        if not any(True for _ in module.children()) and not is_linear(module) and _is_elementwise(module):
            found[name] = module
    return {**found, **{name: ACT2FN[name] for name in ("gelu", "gelu_new", "relu", "relu2", "silu", "tanh")}}


def _is_elementwise(module: nn.Module) -> bool:
    """Whether a module maps every number by itself."""
    like = next(module.parameters(), torch.zeros((), dtype=torch.float64))
    point = torch.linspace(-2, 2, 6).to(like)
    try:
        together, apart = module(point[None]), torch.cat([module(number[None, None]) for number in point], 1)
    except Exception:
        return False
    return isinstance(together, Tensor) and same(together, apart)


def within_adapter(name: str) -> bool:
    """Whether a dotted name is of a part of a linear map with an adapter."""
    return any(part in ("base_layer", "lora_A", "lora_B", "lora_dropout") for part in name.split("."))


def same(a: Tensor | None, b: Tensor | None, tolerance: float = 1e-9) -> bool:
    """Whether two tensors are equal but for rounding; False where one is none."""
    if a is None or b is None or a.shape != b.shape:
        return False
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max().clamp(min=1e-30))


@contextmanager
def recording_calls(blocks: Iterable[nn.Module], calls: list[Call], streams: bool = False) -> Iterator[None]:
    """Keep the arguments that blocks are called with, in the order of the calls.

    Args:
        streams: whether the residual streams are kept as well; without them None stands there.
    """

    def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
        call = Call(args, dict(kwargs))
        calls.append(call if streams else call.with_hidden(None))

    handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
