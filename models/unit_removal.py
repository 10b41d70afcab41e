"""Forwards without one unit of each sequence at its answer token, with gradients by every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.protocols import Batch
from twinlens.models.anatomy import Anatomy
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.encoder_anatomy import EncoderAnatomy, encoder_anatomy
from twinlens.models.encoders import reads_first
from twinlens.models.expert_projection import MixtureProjection
from twinlens.models.forwards import answer_positions, first_positions
from twinlens.models.padding import aligned, moved_by_padding
from twinlens.models.recording import removing


class UnitRemoval:
    """Scores of sequences as they are, and of the same without a unit.

    A neuron is 0 where the linear map behind it reads it, a head in all its dimensions there; at the answer token alone
    (of an encoder: the token that its head reads). What the map writes of other units, and its bias, stay.

    Args:
        model: a `TextClassifier` or `LanguageModel`; its parts are found and verified here, before a tape records.

    Raises:
        UserError: a model whose neurons are not found.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.of_first = reads_first(model.lm)
        find = encoder_anatomy if self.of_first else build_anatomy
        # the rounding of a mixed precision is no fault of the parts
        with torch.autocast(next(model.backbone.parameters()).device.type, enabled=False):
            self.anatomy: Anatomy | EncoderAnatomy = find(model.backbone)
            moved_by_padding(model.backbone)  # which runs the model too, and remembers

    def scores(self, batch: Batch, attention: Tensor, layer: Tensor, unit: Tensor, head: Tensor) -> Tensor:
        """Readout scores [2 · batch, outputs]: of each sequence as it is, and behind it without its unit.

        Args:
            batch: one sequence for each unit.
            attention: whether the unit is of the attention, bool [batch].
            layer, unit: its address, [batch]; of a head its number.
            head: whether it is a whole head, bool [batch].
        """
        batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
        twice = {name: each.repeat_interleave(2, 0) for name, each in aligned(self.model.backbone, batch).items()}
        with self._removing(twice["attention_mask"], attention, layer, unit, head):
            return self.model(twice)

    @contextmanager
    def _removing(self, mask: Tensor, attention: Tensor, layer: Tensor, unit: Tensor, head: Tensor) -> Iterator[None]:
        positions = (first_positions if self.of_first else answer_positions)(mask)
        handles = []
        for number, block in enumerate(self.anatomy.blocks):
            for part, of_attention in ((self.anatomy.down_projection, False), (self.anatomy.attention_output, True)):
                own = torch.nonzero((layer == number) & (attention == of_attention))[:, 0]
                if len(own):
                    rows = 2 * own + 1
                    reads = part(block)
                    if isinstance(reads, MixtureProjection):
                        handles += reads.zeroing(rows * mask.shape[1] + positions[rows], unit[own])
                        continue
                    size = torch.where(head[own], self.anatomy.head_dim, 1)
                    span = torch.stack([unit[own] * size, (unit[own] + 1) * size], 1)
                    handles.append(reads.register_forward_pre_hook(_zeroing(rows, positions[rows], span, mask.shape)))
        with removing(handles):
            yield


def _zeroing(
    rows: Tensor, positions: Tensor, span: Tensor, shape: Sequence[int]
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that zeroes inputs of a linear map, from `span[:, 0]` to before `span[:, 1]`, in one token of rows."""

    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        given: Tensor = arguments[0]
        inputs = given.reshape(*shape, given.shape[-1]).clone()
        numbers = torch.arange(given.shape[-1], device=given.device)
        gone = (numbers >= span[:, :1]) & (numbers < span[:, 1:])
        inputs[rows, positions] = inputs[rows, positions].masked_fill(gone, 0)
        return inputs.reshape(given.shape), *arguments[1:]

    return hook
