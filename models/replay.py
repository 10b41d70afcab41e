"""Variant rows by replay: a block called again with the arguments it got, cut at the answer token.

Which axis of an argument counts tokens, and which sequences, is found from two forwards of different shape. Rows stand
at the answer position: what counts queries is taken there, what counts keys gets the answer's own entry behind the
prefix for every row, and the mask lets a row see the prefix and itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from twinlens.models.anatomy import Anatomy
from twinlens.models.block_probe import Call, recording_calls
from twinlens.models.chain import example_batch
from twinlens.models.forwards import answer_positions, at_positions, backbone_arguments

Place = tuple[Any, ...]
"""Where a tensor stands in a call: `args` or `kwargs`, then indices and names."""


@dataclass(frozen=True)
class Axes:
    """What the axes of an argument count.

    Attributes:
        tokens: axes that count tokens.
        folded: how many entries of the first axis belong to a sequence; 0: it does not count sequences.
    """

    tokens: tuple[int, ...]
    folded: int


@dataclass(frozen=True)
class Rows:
    """What variant rows of a batch need beside themselves.

    Attributes:
        keys, values: per layer [batch, key heads, columns, head_dim], all columns of the full forward.
        visible: columns before the answer position, [batch, columns].
        positions: column of the answer position, [batch].
        calls: of every block in the full forward, without the residual stream.
    """

    keys: list[Tensor | None]
    values: list[Tensor | None]
    visible: Tensor
    positions: Tensor
    calls: Sequence[Call]


class RowCache(Cache):
    """A read-only cache: the prefix's columns followed by the rows' own."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(layers=[])
        self.rows = rows

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.rows.keys[layer_idx], self.rows.values[layer_idx]
        assert keys is not None
        assert values is not None
        return (
            torch.cat([keys.to(key_states.dtype), key_states], 2),
            torch.cat([values.to(value_states.dtype), value_states], 2),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.rows.visible.shape[1]


class Replay:
    """Runs rows of one batch through the blocks of one model.

    Args:
        axes: per argument of its blocks that counts tokens, see `axes_of`.
        rows: of the batch.
    """

    def __init__(self, axes: Mapping[Place, Axes], rows: Rows) -> None:
        self.axes = axes
        self.rows = rows
        self.known: dict[tuple[int, Place, int], Any] = {}  # blocks share most of their arguments

    def run(self, block: Any, layer: int, hidden: Tensor) -> Tensor:
        """One block over rows [batch, rows, hidden]."""
        call = self.rows.calls[layer]
        args = [self._cut(value, ("args", number), hidden) for number, value in enumerate(call.args)]
        kwargs = {name: self._cut(value, ("kwargs", name), hidden) for name, value in call.kwargs.items()}
        call = Call(tuple(args), kwargs).with_hidden(hidden)
        output = block(*call.args, **call.kwargs)
        return (output[0] if isinstance(output, tuple) else output).view(hidden.shape)

    def _cut(self, value: Any, place: Place, hidden: Tensor) -> Any:
        if isinstance(value, Cache):
            return RowCache(self.rows)
        if isinstance(value, tuple | list):
            return type(value)(self._cut(part, (*place, number), hidden) for number, part in enumerate(value))
        if isinstance(value, dict):
            return {name: self._cut(part, (*place, name), hidden) for name, part in value.items()}
        axes = self.axes.get(place)
        if axes is None or not (value is None or isinstance(value, Tensor)):
            return value
        known = (id(value), place if value is None else (), hidden.shape[1])
        if known not in self.known:
            self.known[known] = cut_at_rows(value, axes, hidden, self.rows)
        return self.known[known]


def cut_at_rows(value: Tensor | None, axes: Axes, hidden: Tensor, rows: Rows) -> Tensor | None:
    """An argument as rows that all stand at the answer position read it.

    Args:
        hidden: the rows, [batch, rows, hidden].
        rows: of the batch.
    """
    n_rows = hidden.shape[1]
    if len(axes.tokens) == 2:
        return _mask(value, hidden, rows)
    if value is None:
        return None
    (axis,) = axes.tokens
    positions = rows.positions.repeat_interleave(max(1, axes.folded))
    if axes.folded == 0 and axis > 0 and value.shape[0] == 1:
        value = value.expand(len(positions), *value.shape[1:])
    elif axes.folded == 0:  # one entry for all sequences
        own = value.narrow(axis, int(positions[0]), 1)
        return own.expand(*own.shape[:axis], n_rows, *own.shape[axis + 1 :])
    own = at_positions(value.movedim(axis, 1), positions)[:, None].movedim(1, axis)
    repeated = own.expand(*own.shape[:axis], n_rows, *own.shape[axis + 1 :])
    counts_keys = axis == value.dim() - 1 and value.dim() > 2
    return torch.cat([value, repeated], axis) if counts_keys else repeated


def _mask(own: Tensor | None, hidden: Tensor, rows: Rows) -> Tensor:
    """What rows see: what the answer token sees of the prefix, and of the rows each itself.

    Args:
        own: the answer token's row of the mask, [batch, heads, 1, keys]; None: every earlier token is seen.
    """
    n_rows, n_columns = hidden.shape[1], rows.visible.shape[1]
    if own is None:
        own = hidden.new_zeros(len(hidden), 1, 1, n_columns)
    seen = at_positions(own.movedim(-1, 1), rows.positions)[..., None]  # what stands where it sees itself
    hides = ~seen if own.dtype == torch.bool else torch.full_like(seen, torch.finfo(own.dtype).min)
    prefix = torch.where(rows.visible[:, None, None], own, hides).expand(-1, -1, n_rows, -1)
    itself = torch.eye(n_rows, dtype=torch.bool, device=hidden.device)
    return torch.cat([prefix, torch.where(itself, seen, hides)], -1)


def axes_of(anatomy: Anatomy) -> dict[Place, Axes]:
    """What the axes of the blocks' arguments count, found from two forwards over padded tokens."""
    shapes = (batch, tokens), (more, longer) = (2, 5), (3, 8)
    first, second = (_example_leaves(anatomy, *shape) for shape in shapes)
    found: dict[Place, Axes] = {}
    for place in first.keys() & second.keys():
        sizes = list(zip(first[place].shape, second[place].shape, strict=False))
        counted = tuple(axis for axis, size in enumerate(sizes) if size == (tokens, longer))
        if counted:
            folds = 0 not in counted and sizes[0][0] * more == sizes[0][1] * batch
            found[place] = Axes(counted, sizes[0][0] // batch if folds else 0)
    return found


@torch.no_grad()
def _example_leaves(anatomy: Anatomy, batch: int, tokens: int) -> dict[Place, Tensor]:
    """Tensors in the blocks' calls of a forward with padding behind the first sequence."""
    inputs = example_batch(anatomy.backbone, batch, tokens)
    inputs["attention_mask"][0, -2:] = 0
    calls: list[Call] = []
    with recording_calls(anatomy.blocks, calls):
        anatomy.backbone(**backbone_arguments(anatomy.backbone, inputs), use_cache=False)
    return {place: leaf for call in calls for place, leaf in _leaves(call).items()}


def _leaves(call: Call) -> dict[Place, Tensor]:
    found: dict[Place, Tensor] = {}

    def visit(value: Any, place: Place) -> None:
        if isinstance(value, Tensor):
            found[place] = value
        elif isinstance(value, tuple | list):
            for number, part in enumerate(value):
                visit(part, (*place, number))
        elif isinstance(value, dict):
            for name, part in value.items():
                visit(part, (*place, name))

    visit(call.args, ("args",))
    visit(dict(call.kwargs), ("kwargs",))
    return found


def rows_of(calls: Sequence[Call], cache: Any, mask: Tensor, axes: Mapping[Place, Axes]) -> Rows:
    """What rows at the answer tokens of a batch can see, of a full forward.

    Args:
        calls: of its blocks; of their masks the answer tokens' rows are kept alone.
        cache: of the forward.
        mask: its attention mask, [batch, columns].
        axes: see `axes_of`.
    """
    positions = answer_positions(mask)
    columns = torch.arange(mask.shape[1], device=mask.device)
    known: dict[int, Tensor] = {}

    def kept(value: Any, place: Place) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(kept(part, (*place, number)) for number, part in enumerate(value))
        if isinstance(value, dict):
            return {name: kept(part, (*place, name)) for name, part in value.items()}
        if not isinstance(value, Tensor) or place not in axes or len(axes[place].tokens) != 2:
            return value
        if id(value) not in known:
            whole = value.expand(len(mask), -1, -1, -1).transpose(1, 2)
            known[id(value)] = at_positions(whole, positions)[:, :, None]
        return known[id(value)]

    layers: list[Any] = cache.layers
    return Rows(
        keys=[getattr(layer, "keys", None) for layer in layers],
        values=[getattr(layer, "values", None) for layer in layers],
        visible=mask.bool() & (columns < positions[:, None]),
        positions=positions,
        calls=[Call(kept(call.args, ("args",)), kept(dict(call.kwargs), ("kwargs",))) for call in calls],
    )
