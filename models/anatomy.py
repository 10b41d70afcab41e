"""Parts of a decoder: one adapter per architecture family, verified when it is built.

The adapter names the modules (blocks, projections, norms). Everything that looks inside a model goes through it; a
family without one is looked into by `twinlens.models.found_anatomy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from twinlens.attribution.errors import UserError
from twinlens.models.adapters import weight_of
from twinlens.models.linear_layers import projection_shape


class MissingPart(UserError):
    """A model lacks a part that some methods read and others do without."""


@dataclass(frozen=True)
class KeyRows:
    """Rows of a linear map that a neuron's coefficient is made of.

    Attributes:
        projection: the linear map.
        outputs: which of its outputs belong to the neurons in turn, [neurons]; None: all, in order.
    """

    projection: Any
    outputs: Tensor | None = None

    def of(self, units: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows [units, hidden] and biases [units] of some neurons."""
        own = units if self.outputs is None else self.outputs.to(units.device)[units]
        bias = self.projection.bias
        return projection_rows(self.projection).detach().T[own], None if bias is None else bias.detach()[own]


@dataclass(frozen=True)
class Writing:
    """What lies between a projection's output and the residual stream: a norm and a factor, or nothing.

    Attributes:
        part: the module whose output, times `scale`, is added.
        norm: reads the projection's output; None: nothing does.
        scale: factor of the sum.
    """

    part: nn.Module
    norm: nn.Module | None = None
    scale: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether the projection's output is added as it is."""
        return self.norm is None and self.scale == 1

    def __call__(self, output: Tensor) -> Tensor:
        """What is added, [..., hidden] → [..., hidden]."""
        output = output if self.norm is None else self.norm(output)
        return output if self.scale == 1 else self.scale * output


class Anatomy:
    """Adapter for Llama-shaped decoders; families that differ override what differs.

    Args:
        backbone: the transformers base model (no head), in eval mode.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    gated: ClassVar[bool] = True
    """Whether the activation is act(gate) × up, so that it is no function of the up-projection alone."""

    backbone: Any  # attributes differ from family to family

    def __init__(self, backbone: PreTrainedModel) -> None:
        self.backbone = backbone
        self.config = backbone.config
        self.refuse_unsupported()

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks in order."""
        return self.backbone.layers

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_neurons(self) -> int:
        """Neurons of one layer: inputs of its MLP down-projection."""
        return projection_shape(self.down_projection(self.blocks[0]))[0]

    @property
    def hidden_size(self) -> int:
        return projection_shape(self.down_projection(self.blocks[0]))[1]

    def down_projection(self, block: Any) -> nn.Module:
        return block.mlp.down_proj

    def up_projection(self, block: Any) -> nn.Module:
        return block.mlp.up_proj

    def pre_activation(self, block: Any, projected: Tensor) -> Tensor:
        """What the non-linearity reads in the up-projection's output, [..., outputs] → [..., neurons]."""
        return projected

    def attention_output(self, block: Any) -> nn.Module:
        """The attention output projection."""
        return block.self_attn.o_proj

    def activation_function(self, block: Any) -> Callable[[Tensor], Tensor]:
        return block.mlp.act_fn

    def gate_projection(self, block: Any) -> nn.Module | None:
        """What the up-projection is multiplied with, before its non-linearity; None for MLPs that are not gated."""
        return block.mlp.gate_proj if self.gated else None

    def key_rows(self, block: Any) -> list[KeyRows]:
        """What makes a neuron's coefficient: the up-projection, and the gate where there is one."""
        gate = self.gate_projection(block)
        return (
            [KeyRows(self.up_projection(block))]
            if gate is None
            else [KeyRows(self.up_projection(block)), KeyRows(gate)]
        )

    def attention(self, block: Any) -> nn.Module:
        """The attention module; the second of its outputs are its weights where it writes them out."""
        return block.self_attn

    def value_projection(self, block: Any) -> nn.Module:
        """The projection that makes the heads' values, possibly together with queries and keys."""
        return block.self_attn.v_proj

    def head_values(self, block: Any, projected: Tensor) -> Tensor:
        """The values in the value projection's output, [..., outputs] → [..., key heads, head_dim]."""
        return projected.unflatten(-1, (-1, self.head_dim))

    def pre_attention_norm(self, block: Any) -> nn.Module | None:
        return block.input_layernorm

    def pre_mlp_norm(self, block: Any) -> nn.Module | None:
        return block.post_attention_layernorm

    @property
    def last_norm(self) -> nn.Module | None:
        """The norm after the last block, where there is one."""
        return self.backbone.norm

    @property
    def last_projection(self) -> nn.Module | None:
        """A linear map without bias between the last norm and the head, where there is one."""
        return None

    @property
    def parallel(self) -> bool:
        """Whether the MLP reads the block's input beside the attention instead of after it."""
        return False

    @property
    def n_heads(self) -> int:
        return self.config.num_attention_heads

    @property
    def n_key_heads(self) -> int:
        """Heads of keys and values."""
        rows = projection_rows(self.value_projection(self.blocks[0]))
        return self.head_values(self.blocks[0], rows).shape[-2]

    @property
    def head_dim(self) -> int:
        return projection_shape(self.attention_output(self.blocks[0]))[0] // self.n_heads

    def final_norm(self, hidden: Tensor) -> Tensor:
        """From the last block's output to what the head reads."""
        return self.backbone.norm(hidden)

    def value_rows(self, layer: int) -> Tensor:
        """Down-projection rows, [neurons, hidden]: the value vector of each neuron."""
        return projection_rows(self.down_projection(self.blocks[layer]))

    def mlp_write(self, layer: int) -> Writing:
        """What the down-projection's output becomes on its way into the residual stream."""
        return Writing(self.down_projection(self.blocks[layer]))

    def attention_write(self, layer: int) -> Writing:
        """What the attention's projected output becomes on its way into the residual stream."""
        return Writing(self.attention_output(self.blocks[layer]))

    def refuse_unsupported(self) -> None:
        """Raise UserError for variants of the family whose residual stream is not additive."""


def projection_rows(module: nn.Module) -> Tensor:
    """Weight of a projection as [inputs, outputs], whether it is a Linear or transformers' Conv1D, with its adapter."""
    weight = weight_of(module)
    return weight.T if isinstance(getattr(module, "base_layer", module), nn.Linear) else weight


def position_ids_from_mask(attention_mask: Tensor) -> Tensor:
    """Position of every token counted over the tokens alone, so that padding on either side changes nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def answer_positions(attention_mask: Tensor) -> Tensor:
    """Column of the last non-padding token of each sequence, [batch].

    Taken from the mask, never from the padding id: an id that also occurs as a real token would move the position.
    """
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (columns * attention_mask.long()).argmax(-1)


def at_positions(values: Tensor, positions: Tensor) -> Tensor:
    """`values` [batch, tokens, …] at one position per sequence → [batch, …]."""
    return values[torch.arange(len(values), device=values.device), positions]


def backbone_arguments(backbone: Any, batch: Any) -> dict[str, Tensor]:
    """Keyword arguments of a full forward, with positions that do not depend on the padding side.

    Models that take no positions (ALiBi) read them off the mask.
    """
    arguments = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    kind: Any = type(backbone)
    if _takes_positions(kind):
        arguments["position_ids"] = position_ids_from_mask(batch["attention_mask"])
    return arguments


@cache
def _takes_positions(backbone_class: Any) -> bool:
    return "position_ids" in signature(backbone_class.forward).parameters
