"""Parts of a decoder block found by identities: which sub-modules write into the residual stream, and what they read.

Nothing is taken from names. Every finding is an equality of tensors in a call of a copy of the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor

from twinlens.models.block_probe import BlockProbe, Seen, functions_in, is_linear, same
from twinlens.models.mixture import DROPPED, Mixture, mixture_of


@dataclass(frozen=True)
class Write:
    """One of the two summands that a block adds to the residual stream.

    Attributes:
        part: module whose output, times `scale`, is added.
        scale: found, not read from the configuration.
        projection: linear map behind the summand; None: there is none, or those of a mixture's experts.
        norm: module between the projection and the sum; None: nothing is.
    """

    part: str
    scale: float
    projection: str | None
    norm: str | None

    def told(self) -> str:
        """What is added, in words."""
        scale = "" if self.scale == 1 else f"{self.scale:.4g} · "
        return f"{scale}{f'{self.norm} of ' if self.norm else ''}{self.projection or self.part}"


@dataclass(frozen=True)
class Slice:
    """Outputs of a linear map that belong together.

    Attributes:
        module: the map.
        outputs: numbers of its outputs, [n]; None: all, in order.
    """

    module: str
    outputs: Tensor | None

    def of(self, written: Tensor) -> Tensor:
        """These of the map's outputs, [..., outputs] → [..., n]."""
        return written if self.outputs is None else written[..., self.outputs.to(written.device)]


@dataclass(frozen=True)
class Mlp:
    """What makes an MLP's activation: act(up), or act(gate) · up.

    Attributes:
        up, gate: of linear maps; gate None: there is none.
        activation: the non-linearity's module, or its name among transformers' activations.
        norm: module between the residual stream and both; None: they read it as it is.
        reads: whether they read the stream through that norm alone, as keys need.
    """

    up: Slice
    gate: Slice | None
    activation: str
    norm: str | None
    reads: bool

    def told(self) -> str:
        """How activations are made, in words."""
        gated = self.up.module if self.gate is None else self.gate.module
        return f"{self.activation}({gated}){'' if self.gate is None else f' · {self.up.module}'}"


@dataclass(frozen=True)
class Heads:
    """Attention whose weights times cached values are the input of its output projection.

    Attributes:
        module: puts its weights out second.
        n_heads, n_key_heads: query heads, and those of keys and values.
        values: the linear outputs that are the values, key heads in order; None: values are not linear outputs.
        norm, reads: as of `Mlp`, for the values.
    """

    module: str
    n_heads: int
    n_key_heads: int
    values: Slice | None
    norm: str | None
    reads: bool


@dataclass(frozen=True)
class BlockParts:
    """What a block is made of; None where there is no such part or none was found.

    Attributes:
        attention, mlp: the two summands.
        parallel: whether the MLP does not read what the attention adds.
        neurons, heads: what the summands are made of.
        experts: what the MLP is made of where it is a mixture.
        unread: why a mixture's experts cannot be read, a word of `twinlens.models.mixture`; None: they can.
    """

    attention: Write | None
    mlp: Write | None
    parallel: bool
    neurons: Mlp | None = None
    heads: Heads | None = None
    experts: Mixture | None = None
    unread: str | None = None


def parts_of(probe: BlockProbe) -> BlockParts | None:
    """The parts of a block; None: it is no sum of its input and two of its sub-modules."""
    writes = _writes(probe)
    if writes is None:
        return None
    mlp = [write for write, other in permutations(writes, 2) if _is_local(probe, write, other)]
    if len(mlp) != 1:
        return _dropping(probe, writes)
    (own,) = mlp
    attention = next(write for write in writes if write is not own)
    if _reads(probe, attention, own):  # the MLP would come first, and rows behind it would miss its way through
        return BlockParts(attention, None, False)
    parallel = not _reads(probe, own, attention)
    entering = probe.flat(probe.hidden)
    assert entering is not None
    between = entering if parallel else entering + attention.scale * _written(probe, attention.part)
    heads = heads_of(probe, attention, entering)
    mixed = mixture_of(probe, _written(probe, own.part)) if own.projection is None else None
    if mixed is None or mixed.mixture is None:
        unread = None if mixed is None else mixed.unread
        return BlockParts(attention, own, parallel, neurons_of(probe, own, between), heads, unread=unread)
    own = Write(mixed.norm or mixed.mixture.part, own.scale, None, mixed.norm)
    return BlockParts(attention, own, parallel, None, heads, mixed.mixture)


def _dropping(probe: BlockProbe, writes: tuple[Write, Write]) -> BlockParts:
    """A block of which no summand is made of its token alone, because of a router, or for another reason."""
    for write in writes:
        found = mixture_of(probe, _written(probe, write.part)) if write.projection is None else None
        if found is not None and found.unread == DROPPED:
            return BlockParts(None, write, False, unread=DROPPED)
    return BlockParts(None, None, False)


def _writes(probe: BlockProbe) -> tuple[Write, Write] | None:
    """The two summands of output − input, with factors."""
    entering, leaving = probe.flat(probe.hidden), probe.flat(probe.written)
    if entering is None or leaving is None or entering.shape != leaving.shape:
        return None
    added = leaving - entering
    distinct: list[list[str]] = []
    for name, seen in probe.seen.items():
        if seen.written is not None and seen.written.shape == added.shape and bool(seen.written.any()):
            group = next((g for g in distinct if same(probe.seen[g[0]].written, seen.written, 1e-12)), None)
            if group is None:
                distinct.append([name])
            else:
                group.append(name)
    best: tuple[float, tuple[list[str], list[str]], Tensor] | None = None
    for pair in combinations(distinct, 2):
        columns = torch.stack([_written(probe, group[0]).flatten() for group in pair], 1)
        for factors in (columns.new_ones(2), torch.linalg.lstsq(columns, added.flatten()[:, None]).solution[:, 0]):
            error = float((columns @ factors - added.flatten()).abs().max() / added.abs().max())
            if error < probe.rounding and float(factors.abs().min()) > 1e-6 and (best is None or error < best[0] / 100):
                best = (error, pair, factors)
    if best is None:
        return None
    first, second = (_write(probe, group, float(factor)) for group, factor in zip(best[1], best[2], strict=True))
    return first, second


def _written(probe: BlockProbe, name: str) -> Tensor:
    written = probe.seen[name].written
    assert written is not None
    return written


def _write(probe: BlockProbe, group: list[str], scale: float) -> Write:
    """The module that a summand is taken from, and the linear map behind it."""
    linear = [name for name in group if is_linear(probe.seen[name].module)]
    if linear:
        deepest = max(linear, key=lambda name: name.count("."))
        return Write(deepest, scale, deepest, None)
    for name in sorted(group, key=lambda name: -name.count(".")):
        read = probe.seen[name].read
        for other, seen in probe.seen.items():
            if is_linear(seen.module) and same(seen.written, read):
                return Write(name, scale, other, name)
    return Write(group[0], scale, None, None)


def _is_local(probe: BlockProbe, write: Write, other: Write) -> bool:
    """Whether a summand at a token depends on that token alone, apart from what the other summand brings."""
    hidden = probe.hidden.clone()
    hidden[:, 0] += 1 + hidden[:, 0].abs()
    fixed = probe.seen[other.part].written
    assert fixed is not None
    seen, _ = probe.run(hidden, {other.part: lambda output: fixed.view_as(output).clone()})
    first = torch.zeros(probe.hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    first[:, 0] = True
    rest = ~first.flatten()
    now, before = seen[write.part].written, probe.seen[write.part].written
    assert now is not None
    assert before is not None
    return same(now[rest], before[rest], 1e-5)


def _reads(probe: BlockProbe, write: Write, other: Write) -> bool:
    """Whether a summand changes with what the other one writes."""
    seen, _ = probe.run(probe.hidden, {other.part: lambda output: output + 1 + output.abs()})
    return not same(seen[write.part].written, probe.seen[write.part].written, 1e-5)


def neurons_of(probe: BlockProbe, mlp: Write, stream: Tensor) -> Mlp | None:
    """What makes the activation behind an MLP's projection; None: it was not found."""
    activation = None if mlp.projection is None else probe.seen[mlp.projection].read
    if activation is None:
        return None
    groups = [_outputs(name, seen, activation.shape[1]) for name, seen in probe.seen.items()]
    whole = [part for group in groups for part in group]
    functions = functions_in(probe)

    def made(up: Slice, gate: Slice | None, name: str) -> Mlp:
        norm, reads = norm_between(probe, stream, probe.seen[up.module].read)
        return Mlp(up, gate, name, norm, reads)

    for up in whole:
        value = _sliced(probe, up)
        for name, function in functions.items():
            if same(function(value), activation, 1e-5):
                return made(up, None, name)
    for up, gate in permutations(whole, 2):
        value, through = _sliced(probe, up), _sliced(probe, gate)
        for name, function in functions.items():
            if same(function(through) * value, activation, 1e-5):
                return made(up, gate, name)
    return None


def heads_of(probe: BlockProbe, attention: Write, stream: Tensor) -> Heads | None:
    """The heads behind an attention's output projection; None: weights · values are not its input."""
    read = None if attention.projection is None else probe.seen[attention.projection].read
    values = probe.values
    if read is None or values is None:
        return None
    for name, seen in probe.seen.items():
        if seen.weights is None or seen.weights.shape[1] % values.shape[1]:
            continue
        repeated = values.repeat_interleave(seen.weights.shape[1] // values.shape[1], 1).to(seen.weights.dtype)
        if repeated.shape[2] != seen.weights.shape[3]:
            continue
        attended = (seen.weights @ repeated).transpose(1, 2).flatten(2).flatten(0, 1)
        if same(attended, read, 1e-5):
            found = _value_outputs(probe, values.transpose(1, 2).flatten(2).flatten(0, 1))
            norm, reads = (None, False) if found is None else norm_between(probe, stream, probe.seen[found.module].read)
            return Heads(name, seen.weights.shape[1], values.shape[1], found, norm, reads)
    return None


def _value_outputs(probe: BlockProbe, values: Tensor) -> Slice | None:
    """The outputs of one linear map that are the cached values [tokens, width]."""
    mixed = torch.sin(torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device))
    for name, seen in probe.seen.items():
        if not is_linear(seen.module) or seen.written is None or seen.written.shape[1] < values.shape[1]:
            continue
        # one number per column finds where each could be; then all of them are compared
        ordered, order = (mixed @ seen.written).sort()
        wanted = mixed @ values
        right = torch.searchsorted(ordered, wanted).clamp(max=len(ordered) - 1)
        left = (right - 1).clamp(min=0)
        nearer = (ordered[left] - wanted).abs() < (ordered[right] - wanted).abs()
        outputs = order[torch.where(nearer, left, right)]
        if same(seen.written[:, outputs], values, probe.rounding):
            return Slice(name, None if torch.equal(outputs, torch.arange(seen.written.shape[1]).to(order)) else outputs)
    return None


def _outputs(name: str, seen: Seen, width: int) -> list[Slice]:
    """A linear map's outputs as one vector of neurons, or as two: one behind the other, or in turns."""
    if not is_linear(seen.module) or seen.written is None or seen.read is None:
        return []
    every = torch.arange(seen.written.shape[1], device=seen.written.device)
    if len(every) == width:
        return [Slice(name, None)]
    if len(every) == 2 * width:
        return [Slice(name, part) for part in (every[:width], every[width:], every[::2], every[1::2])]
    return []


def _sliced(probe: BlockProbe, part: Slice) -> Tensor:
    return part.of(_written(probe, part.module))


def norm_between(probe: BlockProbe, stream: Tensor, read: Tensor | None) -> tuple[str | None, bool]:
    """The module that reads the stream and writes what is read, and whether that or the stream itself is read."""
    for name, seen in probe.seen.items():
        if (
            not is_linear(seen.module)
            and same(seen.read, stream, probe.rounding)
            and same(seen.written, read, probe.rounding)
        ):
            return name, True
    return None, same(read, stream, probe.rounding)
