"""Mixtures of experts found by identities: which module hands tokens to experts, and what stands beside them.

Nothing is taken from names of families. transformers' experts interface has one form for all: a module with the weights
of all experts, called with hidden states [tokens, hidden], numbers of experts and their weights [tokens, chosen]. What
the block's sum gets is s · experts(x) + Σ t · gate · shared(x), with factors that are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.models.block_probe import BlockProbe, Call, first_tensor, is_linear, same
from twinlens.models.expert_weights import expert_outputs, is_experts, routing_of

HIDDEN = "hidden"
"""Experts that no call shows."""
DROPPED = "dropped"
"""A router whose choice for one token depends on how many others there are."""


@dataclass(frozen=True)
class Shared:
    """An expert that every token goes through.

    Attributes:
        projection: linear map behind its neurons.
        scale: factor of its output.
        gate: module whose output [tokens, 1], through a sigmoid, multiplies it; None: nothing does.
    """

    projection: str
    scale: float
    gate: str | None


@dataclass(frozen=True)
class Mixture:
    """What a block's position-wise summand is made of where it is a mixture of experts.

    Attributes:
        part: module that puts out the sum over experts.
        experts: module that is called with hidden states, numbers of experts and their weights.
        scale: factor of the routed experts' sum.
        shared: experts that every token goes through.
    """

    part: str
    experts: str
    scale: float
    shared: tuple[Shared, ...]

    def told(self) -> str:
        """For example `the routed experts in mlp.experts and mlp.shared_experts.down_proj`."""
        return " and ".join([f"the routed experts in {self.experts}", *(each.projection for each in self.shared)])


@dataclass(frozen=True)
class FoundMixture:
    """A mixture, or why there is none.

    Attributes:
        norm: reads its sum and writes what the block adds; None: nothing does.
        mixture: None: its experts cannot be read.
        unread: why: `HIDDEN` or `DROPPED`; None where they can.
    """

    norm: str | None = None
    mixture: Mixture | None = None
    unread: str | None = None


def mixture_of(probe: BlockProbe, written: Tensor | None) -> FoundMixture | None:
    """The experts behind what a block adds; None: there are none.

    Args:
        written: the summand, before its factor, [tokens, hidden].
    """
    calls = _calls_of_experts(probe)
    hidden = False
    for source, norm in _sources(probe, written):
        inside = [name for name in probe.parts if name == source or name.startswith(f"{source}.")]
        if not any(_holds_experts(probe.parts[name]) for name in inside):
            continue
        called = [name for name in inside if name in calls]
        if len(called) != 1:
            hidden = True
            continue
        found = _taken_apart(probe, source, called[0], calls[called[0]])
        if found is None:
            hidden = True
        elif not _alone(probe, source):
            return FoundMixture(norm, None, DROPPED)
        else:
            return FoundMixture(norm, found)
    return FoundMixture(unread=HIDDEN) if hidden else None


def _holds_experts(module: nn.Module) -> bool:
    """Whether a module has weights of more than two axes of its own, as of experts in one block of numbers."""
    return is_experts(module) or any(weight.dim() > 2 for weight in module.parameters(recurse=False))


def _sources(probe: BlockProbe, written: Tensor | None) -> Iterator[tuple[str, str | None]]:
    """Modules whose output is the summand, or what a module without linear maps makes it of; with that module.

    The outer ones first: a router belongs to what is looked at.
    """
    order = sorted(probe.seen, key=lambda name: name.count("."))
    behind = [name for name in order if same(probe.seen[name].written, written)]
    yield from ((name, None) for name in behind)
    for norm in behind:
        if any(True for _ in probe.parts[norm].children()) or is_linear(probe.parts[norm]):
            continue
        read = probe.seen[norm].read
        yield from ((name, norm) for name in order if name != norm and same(probe.seen[name].written, read))


def _calls_of_experts(probe: BlockProbe) -> dict[str, tuple[Call, Tensor]]:
    """Calls of the modules of transformers' interface that hand over a routing, and what they put out."""
    calls: dict[str, list[tuple[Call, Any]]] = {}
    handles = [
        part.register_forward_hook(
            lambda m, args, kwargs, out, name=name: calls.setdefault(name, []).append((Call(args, kwargs), out)),
            with_kwargs=True,
        )
        for name, part in probe.parts.items()
        if is_experts(part)
    ]
    try:
        probe.run(probe.hidden)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, each in calls.items():
        output = first_tensor(each[0][1])
        if len(each) == 1 and routing_of(each[0][0].args, each[0][0].kwargs) is not None and output is not None:
            found[name] = (each[0][0], output)
    return found


@torch.no_grad()
def _taken_apart(probe: BlockProbe, source: str, name: str, seen: tuple[Call, Tensor]) -> Mixture | None:
    """The sum of a mixture as routed and shared experts; None: it is made otherwise."""
    call, output = seen
    routing = routing_of(call.args, call.kwargs)
    assert routing is not None
    total, own = probe.seen[source].written, probe.flat(output)
    if total is None or own is None or not same(expert_outputs(probe.parts[name], routing), own, probe.rounding):
        return None
    alone = _fitted(total, [own], probe.rounding)
    if alone is not None:
        return Mixture(source, name, alone[0], ())
    gates: dict[str | None, Tensor | None] = {None: None}
    gates |= {
        gate: part.written.sigmoid()
        for gate, part in probe.seen.items()
        if part.written is not None and part.written.shape[-1] == 1
    }
    for shared, part in probe.seen.items():
        if not (shared.startswith(f"{source}.") and is_linear(part.module)) or part.written is None:
            continue
        if part.read is None or part.written.shape != total.shape:
            continue
        for gate, factor in gates.items():
            written = part.written if factor is None else factor * part.written
            scales = _fitted(total, [own, written], probe.rounding)
            if scales is not None:
                return Mixture(source, name, scales[0], (Shared(shared, scales[1], gate),))
    return None


def _fitted(total: Tensor, parts: list[Tensor], tolerance: float) -> list[float] | None:
    """Factors with which parts add up to a total, 1 where that is one; None: they do not."""
    if same(sum(parts, torch.zeros_like(total)), total, tolerance):
        return [1.0] * len(parts)
    columns = torch.stack([part.flatten() for part in parts], 1).to(total.dtype)
    factors = torch.linalg.lstsq(columns, total.flatten()[:, None]).solution[:, 0]
    if float(factors.abs().min()) < 1e-6 or not same((columns @ factors).view_as(total), total, tolerance):
        return None
    return factors.tolist()


@torch.no_grad()
def _alone(probe: BlockProbe, source: str) -> bool:
    """Whether a mixture writes the same for a token whatever stands beside it.

    All tokens are made the same one: a router with room for so many tokens of an expert drops what comes last.
    """
    calls: list[Call] = []
    module = probe.parts[source]
    handle = module.register_forward_pre_hook(
        lambda m, args, kwargs: calls.append(Call(args, kwargs)), with_kwargs=True
    )
    try:
        probe.run(probe.hidden)
    finally:
        handle.remove()
    given: Any = calls[0].hidden
    token = given.reshape(-1, given.shape[-1])[:1]
    call = calls[0].with_hidden(token.expand(given.numel() // given.shape[-1], -1).reshape(given.shape).clone())
    output = first_tensor(module(*call.args, **call.kwargs))
    rows = None if output is None else probe.flat(output)
    return rows is not None and same(rows, rows[:1].expand_as(rows), 1e-5)


def from_plain(plain: Mapping[str, Any] | None) -> Mixture | None:
    """The mixture that `dataclasses.asdict` has written."""
    return None if plain is None else Mixture(**{**plain, "shared": tuple(Shared(**each) for each in plain["shared"])})
