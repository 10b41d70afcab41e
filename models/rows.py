"""Variant rows of a model: by replay where a check says that it equals full forwards, by full forwards elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from twinlens.attribution.protocols import Batch
from twinlens.models.anatomy import Anatomy
from twinlens.models.block_probe import Call, recording_calls
from twinlens.models.chain import example_batch
from twinlens.models.forwards import answer_positions, at_positions, backbone_arguments
from twinlens.models.padding import aligned
from twinlens.models.replay import Axes, Place, Replay, Rows, axes_of, rows_of

CHECKED_TOKENS = 9
"""Of each text that edited tokens are checked with."""
_KNOWN: WeakKeyDictionary[Any, Mapping[Place, Axes] | None] = WeakKeyDictionary()
"""What was found of each model, whose weights may have changed since: structure does not depend on them."""


@dataclass(frozen=True)
class RowContext:
    """What the rows of a batch need.

    Attributes:
        tokens: `input_ids` and `attention_mask` of the sequences, [sequences, tokens].
        visible: columns before the answer position, [sequences, tokens].
        replayed: calls and caches; None: rows run as full forwards.
    """

    tokens: Batch
    visible: Tensor
    replayed: Rows | None


class RowRunner:
    """Final hidden states of variant rows.

    Args:
        anatomy: of the model.

    Attributes:
        axes: what replay needs; None: this model's rows run as full forwards.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        if anatomy.backbone not in _KNOWN:
            axes = axes_of(anatomy)
            _KNOWN[anatomy.backbone] = axes if _replays(anatomy, axes) else None
        self.axes = _KNOWN[anatomy.backbone]

    def forward(self, batch: Batch, recorded: ExitStack) -> tuple[Tensor, RowContext]:
        """The final hidden states of a full forward, [batch, tokens, width], and what rows need of it.

        Args:
            recorded: closed when the forward is over.
        """
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        mask = tokens["attention_mask"]
        if self.axes is None:
            with recorded:
                output = self.anatomy.backbone(**backbone_arguments(self.anatomy.backbone, batch), use_cache=False)
            columns = torch.arange(mask.shape[1], device=mask.device)
            visible = mask.bool() & (columns < answer_positions(mask)[:, None])
            return output.last_hidden_state, RowContext(tokens, visible, None)
        with recorded:
            hidden, rows = forward_for_replay(self.anatomy, self.axes, batch)
        return hidden, RowContext(tokens, rows.visible, rows)

    def run(self, context: RowContext, rows: Sequence[Tensor | None], attended: Sequence[Tensor | None]) -> Tensor:
        """Final hidden states [batch, Σ rows_l, width] of rows that enter by their residual stream.

        Args:
            rows: see `NeuronModel.score_rows`.
            attended: of every layer, or empty.
        """
        attended = attended or [None] * self.anatomy.n_layers
        if context.replayed is None or self.axes is None:
            return full_rows(self.anatomy, context.tokens, rows, attended)
        return self.anatomy.final_norm(replayed_rows(self.anatomy, self.axes, context.replayed, rows, attended))


def forward_for_replay(anatomy: Anatomy, axes: Mapping[Place, Axes], batch: Batch) -> tuple[Tensor, Rows]:
    """A full forward with all that replay needs kept: final hidden states, and the blocks' calls and cache."""
    cache = DynamicCache()  # one made from the config would crop sliding windows
    calls: list[Call] = []
    with recording_calls(anatomy.blocks, calls):
        arguments = backbone_arguments(anatomy.backbone, batch)
        output = anatomy.backbone(**arguments, past_key_values=cache, use_cache=True)
    return output.last_hidden_state, rows_of(calls, cache, batch["attention_mask"], axes)


def replayed_rows(
    anatomy: Anatomy,
    axes: Mapping[Place, Axes],
    context: Rows,
    rows: Sequence[Tensor | None],
    attended: Sequence[Tensor | None],
) -> Tensor:
    """What leaves the last block, [batch, Σ rows_l, hidden]."""
    hidden: Tensor | None = None
    replay = Replay(axes, context)
    for layer, block in enumerate(anatomy.blocks):
        hidden = appended(hidden, rows[layer])
        if hidden is not None:
            with ExitStack() as hooks:
                _attend(hooks, anatomy, block, attended[layer], hidden.shape[:2])
                hidden = replay.run(block, layer, hidden)
    hidden = appended(hidden, rows[anatomy.n_layers])
    assert hidden is not None, "at least one variant row"
    return hidden


def _attend(hooks: ExitStack, anatomy: Anatomy, block: Any, attended: Tensor | None, shape: torch.Size) -> None:
    """Put `attended` in the place of what a block's attention puts out for its last rows; None: leave all."""
    if attended is None:
        return

    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        own = output.reshape(*shape, output.shape[-1])[:, : shape[1] - attended.shape[1]]
        return torch.cat([own, attended.to(own.dtype)], 1).reshape(output.shape)

    hooks.callback(anatomy.attention_output(block).register_forward_hook(hook).remove)


def full_rows(
    anatomy: Anatomy, tokens: Batch, rows: Sequence[Tensor | None], attended: Sequence[Tensor | None]
) -> Tensor:
    """The same by one full forward of every sequence for each row; final hidden states."""
    final: list[Tensor] = []
    for layer, entering in enumerate(rows):
        if entering is None:
            continue
        if layer == anatomy.n_layers:
            final.append(anatomy.final_norm(entering))
            continue
        copies = {name: tokens[name].repeat_interleave(entering.shape[1], 0) for name in tokens}
        positions = answer_positions(copies["attention_mask"])
        block = anatomy.blocks[layer]
        with ExitStack() as hooks:
            handle = block.register_forward_pre_hook(_putting(entering.flatten(0, 1), positions), with_kwargs=True)
            hooks.callback(handle.remove)
            chosen = attended[layer] if layer < len(attended) else None
            if chosen is not None:
                put = put_at(chosen.flatten(0, 1), positions, copies["attention_mask"].shape)
                output = anatomy.attention_output(block)
                hooks.callback(output.register_forward_hook(lambda m, a, out, put=put: put(out)).remove)
            backbone = anatomy.backbone(**backbone_arguments(anatomy.backbone, copies), use_cache=False)
        final.append(at_positions(backbone.last_hidden_state, positions).unflatten(0, entering.shape[:2]))
    return torch.cat(final, 1)


def put_at(values: Tensor, positions: Tensor, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    """A function that writes values [sequences, width] into the answer positions of what modules pass on."""
    here = torch.arange(shape[1], device=positions.device) == positions[:, None]

    def put(tensor: Tensor) -> Tensor:
        whole = tensor.reshape(*shape, tensor.shape[-1])
        return torch.where(here[..., None], values[:, None].to(whole.dtype), whole).reshape(tensor.shape)

    return put


def _putting(values: Tensor, positions: Tensor, chosen: Tensor | None = None) -> Any:
    """A hook on a block that puts values [sequences, hidden] into the residual stream.

    Args:
        chosen: the sequences that get theirs, [sequences]; None: all.
    """

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call = Call(args, kwargs)
        put = put_at(values, positions, call.hidden.shape[:2])(call.hidden)
        new = call.with_hidden(put if chosen is None else torch.where(chosen[:, None, None], put, call.hidden))
        return new.args, dict(new.kwargs)

    return hook


def checked_texts(n_layers: int) -> int:
    """How many texts edited tokens of a model with so many blocks are checked with: each block in one at least."""
    return max(4, n_layers)


def check_tokens(n_layers: int) -> float:
    """Tokens that run through all blocks in such a check, or blocks' work of as much.

    Two forwards by which the blocks' arguments are understood, two that tell whether padding moves anything, one kept,
    its replay with a row of every text from every block, and a full one.
    """
    texts = checked_texts(n_layers)
    return (2 * 5 + 3 * 8) + (2 * 5 + 2) + 2 * texts * CHECKED_TOKENS + texts * (n_layers + 1) / 2


def is_checked(backbone: Any) -> bool:
    """Whether it is known how edited tokens of this model run."""
    return backbone in _KNOWN


@torch.no_grad()
def _replays(anatomy: Anatomy, axes: Mapping[Place, Axes]) -> bool:
    """Whether rows with changed residual streams come out of a replay as out of full forwards.

    Sequences of several lengths, padded on either side; each has a row of its own in another layer.
    """
    batch = example_batch(anatomy.backbone, checked_texts(anatomy.n_layers), CHECKED_TOKENS)
    for number, mask in enumerate(batch["attention_mask"]):
        padding = number % 4
        mask[: padding if number % 2 else 0] = 0
        mask[len(mask) - (0 if number % 2 else padding) :] = 0
    batch = dict(aligned(anatomy.backbone, batch))
    entering: list[Tensor] = []
    try:
        with ExitStack() as hooks:
            for block in anatomy.blocks:
                keep = _keeping(entering, answer_positions(batch["attention_mask"]))
                hooks.callback(block.register_forward_pre_hook(keep, with_kwargs=True).remove)
            _, rows = forward_for_replay(anatomy, axes, batch)
        changed = [stream + stream.roll(1, -1) for stream in entering]
        nobody: list[Tensor | None] = [None] * anatomy.n_layers
        found = replayed_rows(anatomy, axes, rows, [*(stream[:, None] for stream in changed), None], nobody)
        found = anatomy.final_norm(found)
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, NotImplementedError, AssertionError):
        return False  # a block that cannot be called so, or a cache of another kind
    numbers = torch.arange(len(batch["input_ids"]), device=found.device) % anatomy.n_layers
    positions = answer_positions(batch["attention_mask"])
    with ExitStack() as hooks:
        for layer, block in enumerate(anatomy.blocks):
            put = _putting(changed[layer], positions, numbers == layer)
            hooks.callback(block.register_forward_pre_hook(put, with_kwargs=True).remove)
        output = anatomy.backbone(**backbone_arguments(anatomy.backbone, batch), use_cache=False)
    expected = at_positions(output.last_hidden_state, positions)
    own = at_positions(found, numbers)
    tolerance = max(1e-4, 16 * torch.finfo(expected.dtype).eps)
    return float((own - expected).abs().max()) <= tolerance * float(expected.abs().max())


def _keeping(entering: list[Tensor], positions: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        entering.append(at_positions(Call(args, kwargs).hidden, positions))

    return hook


def appended(hidden: Tensor | None, rows: Tensor | None) -> Tensor | None:
    """Rows that were on their way, followed by those that enter here."""
    if hidden is None or rows is None:
        return rows if hidden is None else hidden
    return torch.cat([hidden, rows.to(hidden.dtype)], 1)
