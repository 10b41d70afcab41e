"""Parts of a decoder, found by identities instead of written down; everything that looks inside a model goes here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import ExpertPlaces
from twinlens.models.adapters import projection_rows
from twinlens.models.discovery import BlockParts, Heads, Mlp, Slice, Write
from twinlens.models.expert_parts import down_projections, projection_of, sizes_of_experts, unread
from twinlens.models.expert_projection import HookedProjection
from twinlens.models.linear_layers import projection_shape
from twinlens.models.neuron_parts import STILL, NeuronParts
from twinlens.models.structure import structure_of

FFN = "attribute site=ffn alone, "


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


class Anatomy(NeuronParts):
    """The parts of a decoder by what they do.

    Args:
        backbone: the transformers base model (no head), in eval mode. One without values is read off its twin.

    Raises:
        UserError: there is no chain of blocks, a block is no sum of its input and two parts, or a part has no linear
            map behind it and is no mixture whose experts can be read; or nothing could be looked at, see
            `structure_of`.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        self.backbone: Any = backbone  # attributes differ from type to type
        self.config = backbone.config
        found = structure_of(backbone)
        if found is None:
            raise UserError(
                f"{self._what()} has no chain of blocks in which each output is the next one's input; expected a "
                f"decoder with one residual stream: choose another model, or {STILL}."
            )
        self.structure = found
        self._layer_of = {block: layer for layer, block in enumerate(self.blocks)}
        for layer, part in enumerate(found.parts):
            self._require_neurons(layer, part)
        pairs = [(block, self._part(block)) for block in self.blocks]
        sizes = sizes_of_experts(pairs)
        self._require_one("experts (routed, units of each, units of the shared ones)", set(sizes.values()))
        self.experts = ExpertPlaces(frozenset(sizes), *next(iter(sizes.values()))) if sizes else None
        self._downs = down_projections(pairs, self.experts)
        self._require_one("MLP projections", {projection_shape(down) for down in self._downs.values()})
        self._require_one("attention projections", {projection_shape(self.attention_output(b)) for b in self.blocks})

    def _what(self) -> str:
        return f"the {self.config.model_type} model"

    def _require_one(self, what: str, widths: set[Any]) -> None:
        if len(widths) > 1:
            raise UserError(
                f"{self._what()} has {what} of several widths ({sorted(widths)}), whose neurons do not stand in one "
                f"table; expected one width in all layers: choose another model, or {STILL}."
            )

    def _require_neurons(self, layer: int, part: BlockParts | None) -> None:
        if part is not None and part.mlp is not None and part.unread is not None:
            raise UserError(unread(f"layer {layer} of {self._what()}", self._kind(layer, part.mlp), part.unread))
        if part is None or part.attention is None or part.mlp is None:
            raise UserError(
                f"'block = residual + attention + MLP' fails in layer {layer} of {self._what()}, whose block is no sum "
                "of its input, something that looks at other tokens and, behind it, something that does not; expected "
                f"such a sum, whose parts have neurons: choose another model, or {STILL}."
            )
        for write, what in ((part.mlp, "MLP"), (part.attention, "attention")):
            if write.projection is None and (write is not part.mlp or part.experts is None):
                raise UserError(
                    f"'activation · values = {what} output' fails in layer {layer} of {self._what()}: behind its "
                    f"{self._kind(layer, write)} lies no single linear map; expected one in every layer, whose inputs "
                    f"are the neurons: choose another model, or {STILL}."
                )

    def _kind(self, layer: int, write: Write) -> str:
        return type(self.blocks[layer].get_submodule(write.part)).__name__

    def missing(self, what: str, instead: str = "") -> MissingPart:
        """The refusal of a method that needs a part that was not found."""
        return MissingPart(
            f"{self._what()} shows no {what}, which this method reads; expected a decoder that does: {instead}use a "
            f"method that edits and differentiates the model (method=ig), or {STILL}."
        )

    # -- what was found ------------------------------------------------------------------------------------------

    def _part(self, block: Any) -> BlockParts:
        part = self.structure.parts[self._layer_of[block]]
        assert part is not None
        return part

    def _mlp(self, block: Any) -> Mlp:
        found = self._part(block).neurons
        if self.experts is not None:
            instead = "ask what activates attention neurons (site=attn), "
            raise self.missing("one up-projection of its FFN neurons, which are units of experts", instead)
        if found is None:
            raise self.missing("an activation made of an up-projection, with or without a gate")
        return found

    def _heads(self, block: Any) -> Heads:
        found = self._part(block).heads
        if found is None:
            raise self.missing("attention weights that, times the cached values, are what its output reads", FFN)
        return found

    def _values(self, block: Any) -> Slice:
        found = self._heads(block).values
        if found is None:
            raise self.missing("values that are outputs of one linear map", FFN)
        return found

    def _named(self, name: str | None) -> nn.Module | None:
        return None if name is None else self.backbone.get_submodule(name)

    # -- the whole -----------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks in order."""
        return self.backbone.get_submodule(self.structure.blocks)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_neurons(self) -> int:
        """Neurons of one layer: inputs of its MLP down-projection; of mixtures the units of all experts."""
        return projection_shape(self.down_projection(self.blocks[0]))[0]

    @property
    def hidden_size(self) -> int:
        return projection_shape(self.down_projection(self.blocks[0]))[1]

    @property
    def gated(self) -> bool:
        """Whether the activation is act(gate) × up, so that it is no function of the up-projection alone."""
        neurons = [part.neurons for part in self.structure.parts if part is not None]
        return any(found is None or found.gate is not None for found in neurons)

    @property
    def parallel(self) -> bool:
        """Whether the MLP reads the block's input beside the attention instead of after it."""
        return self._part(self.blocks[0]).parallel

    @property
    def n_heads(self) -> int:
        heads = self._part(self.blocks[0]).heads
        return self.config.get_text_config().num_attention_heads if heads is None else heads.n_heads

    @property
    def n_key_heads(self) -> int:
        """Heads of keys and values."""
        heads = self._part(self.blocks[0]).heads
        return self.n_heads if heads is None else heads.n_key_heads

    @property
    def head_dim(self) -> int:
        return projection_shape(self.attention_output(self.blocks[0]))[0] // self.n_heads

    @property
    def last_norm(self) -> nn.Module | None:
        """The norm after the last block, where there is one."""
        return self._named(self.structure.norm)

    @property
    def last_projection(self) -> nn.Module | None:
        """A linear map without bias between the last norm and the head, where there is one."""
        return self._named(self.structure.projection)

    def final_norm(self, hidden: Tensor) -> Tensor:
        """From the last block's output to what the head reads."""
        for part in (self.last_norm, self.last_projection):
            hidden = hidden if part is None else part(hidden)
        return hidden

    # -- the MLP of a block --------------------------------------------------------------------------------------

    def down_projection(self, block: Any) -> Any:
        """The linear map of the neurons: a module, or what stands for one where there are experts."""
        return self._downs[block]

    def value_rows(self, layer: int) -> Tensor:
        """Down-projection rows, [neurons, hidden]: the value vector of each neuron."""
        down = self.down_projection(self.blocks[layer])
        return down.rows() if isinstance(down, HookedProjection) else projection_rows(down)

    def constant(self, layer: int) -> Tensor | float:
        """What a layer's MLP writes beside its neurons: a bias, [hidden]; of experts that of the last watched call."""
        down = self.down_projection(self.blocks[layer])
        found = down.constant if isinstance(down, HookedProjection) else down.bias
        return 0.0 if found is None else found

    def mlp_write(self, layer: int) -> Writing:
        """What the down-projection's output becomes on its way into the residual stream."""
        return _writing(self.blocks[layer], self._part(self.blocks[layer]).mlp)

    def key_rows(self, block: Any) -> list[KeyRows]:
        """What makes a neuron's coefficient: the up-projection, and the gate where there is one."""
        found = self._mlp(block)
        parts = [found.up] if found.gate is None else [found.up, found.gate]
        return [KeyRows(block.get_submodule(part.module), part.outputs) for part in parts]

    def pre_mlp_norm(self, block: Any) -> nn.Module | None:
        """What the MLP reads the residual stream through; None: it reads it as it is."""
        return self._norm(block, self._mlp(block))

    # -- the attention of a block --------------------------------------------------------------------------------

    def attention_output(self, block: Any) -> nn.Module:
        """The attention output projection."""
        return projection_of(block, self._part(block).attention)

    def attention_write(self, layer: int) -> Writing:
        """What the attention's projected output becomes on its way into the residual stream."""
        return _writing(self.blocks[layer], self._part(self.blocks[layer]).attention)

    def attention(self, block: Any) -> nn.Module:
        """The attention module; the second of its outputs are its weights where it writes them out."""
        return block.get_submodule(self._heads(block).module)

    def value_projection(self, block: Any) -> nn.Module:
        """The projection that makes the heads' values, possibly together with queries and keys."""
        return block.get_submodule(self._values(block).module)

    def head_values(self, block: Any, projected: Tensor) -> Tensor:
        """The values in the value projection's output, [..., outputs] → [..., key heads, head_dim]."""
        return self._values(block).of(projected).unflatten(-1, (self._heads(block).n_key_heads, -1))

    def pre_attention_norm(self, block: Any) -> nn.Module | None:
        """What the values read the residual stream through; None: they read it as it is."""
        return self._norm(block, self._heads(block))

    def _norm(self, block: Any, part: Mlp | Heads) -> nn.Module | None:
        if not part.reads:
            raise self.missing("keys that read the residual stream through one norm")
        return None if part.norm is None else block.get_submodule(part.norm)


def _writing(block: Any, write: Write | None) -> Writing:
    assert write is not None
    norm = None if write.norm is None else block.get_submodule(write.norm)
    return Writing(block.get_submodule(write.part), norm, write.scale)
