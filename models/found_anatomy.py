"""Anatomy of any decoder, found by identities instead of written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from twinlens.attribution.errors import UserError
from twinlens.models.anatomy import Anatomy, KeyRows, MissingPart, Writing
from twinlens.models.block_probe import BlockProbe
from twinlens.models.chain import Chain, Tail, chain_of, eagerly
from twinlens.models.discovery import BlockParts, Heads, Mlp, Slice, Write, parts_of
from twinlens.models.families import FAMILIES
from twinlens.models.linear_layers import projection_shape

ADAPTED = {name for family in FAMILIES for name in family.model_types}
_KNOWN: WeakKeyDictionary[Any, tuple[nn.ModuleList, Tail, list[BlockParts | None]]] = WeakKeyDictionary()
"""What was found of each model; weights that change in a fit leave its structure as it is."""
STILL = "what needs no neurons still works (method=gradsim, also with params=all)"


class FoundAnatomy(Anatomy):
    """A decoder whose parts are found in one recorded forward; see `twinlens.models.discovery`.

    Raises:
        UserError: there is no chain of blocks, a block is no sum of its input and two parts, or a part has no linear
            map behind it, as in a mixture of experts.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__(backbone)
        if any(weight.is_meta or type(weight.data) is not Tensor for weight in backbone.parameters()):
            raise UserError(
                f"{self._what()} has no values of its own here (shapes alone, or shared out over processes), so that "
                "its parts cannot be found; expected a loaded model on each process: use trainer.strategy=ddp or a "
                f"type that needs no search ({', '.join(sorted(ADAPTED))})."
            )
        if backbone not in _KNOWN:
            chain = chain_of(backbone)
            if chain is None:
                raise UserError(
                    f"{self._what()} has no chain of blocks in which each output is the next one's input; expected a "
                    f"decoder with one residual stream: choose another model, or {STILL}."
                )
            with eagerly(backbone):
                _KNOWN[backbone] = (chain.blocks, chain.tail, parts_of_blocks(chain))
        self._blocks, self.tail, self.parts = _KNOWN[backbone]
        self._layer_of = {id(block): layer for layer, block in enumerate(self._blocks)}
        for layer, part in enumerate(self.parts):
            self._require_dense(layer, part)
        for what, find in (("MLP", self.down_projection), ("attention", self.attention_output)):
            widths = {projection_shape(find(block)) for block in self._blocks}
            if len(widths) > 1:
                raise UserError(
                    f"{self._what()} has {what} projections of several widths ({sorted(widths)}), whose neurons do not "
                    f"stand in one table; expected one width in all layers: choose another model, or {STILL}."
                )

    def _what(self) -> str:
        return f"the {self.config.model_type} model"

    def _require_dense(self, layer: int, part: BlockParts | None) -> None:
        if part is None or part.attention is None or part.mlp is None:
            raise UserError(
                f"'block = residual + attention + MLP' fails in layer {layer} of {self._what()}, whose block is no sum "
                "of its input, something that looks at other tokens and, behind it, something that does not; expected "
                f"such a sum, whose parts have neurons: choose another model, or {STILL}."
            )
        for write, what in ((part.mlp, "MLP"), (part.attention, "attention")):
            if write.projection is None:
                kind = type(self._blocks[layer].get_submodule(write.part)).__name__
                raise UserError(
                    f"'activation · values = {what} output' fails in layer {layer} of {self._what()}: behind its "
                    f"{kind} lies no single linear map, as in a mixture of experts; expected one in every layer, whose "
                    f"inputs are the neurons: choose a dense model, or {STILL}."
                )

    def _part(self, block: Any) -> BlockParts:
        part = self.parts[self._layer_of[id(block)]]
        assert part is not None
        return part

    def _mlp(self, block: Any) -> Mlp:
        found = self._part(block).neurons
        if found is None:
            raise self.missing("an activation made of an up-projection, with or without a gate")
        return found

    def _heads(self, block: Any) -> Heads:
        found = self._part(block).heads
        if found is None:
            raise self.missing("attention weights that, times the cached values, are what its output projection reads")
        return found

    def missing(self, what: str) -> MissingPart:
        """The refusal of a method that needs a part that was not found."""
        return MissingPart(
            f"{self._what()} shows no {what}, which this method reads; expected a decoder that does: use a method that "
            f"edits and differentiates the model (method=ig), or {STILL}."
        )

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> nn.ModuleList:
        return self._blocks

    @property
    def gated(self) -> bool:  # type: ignore[override]  # of the found model, not of a family
        neurons = [part.neurons for part in self.parts if part is not None]
        return any(found is None or found.gate is not None for found in neurons)

    def down_projection(self, block: Any) -> nn.Module:
        return _module(block, self._part(block).mlp)

    def attention_output(self, block: Any) -> nn.Module:
        return _module(block, self._part(block).attention)

    def up_projection(self, block: Any) -> nn.Module:
        return block.get_submodule(self._mlp(block).up.module)

    def gate_projection(self, block: Any) -> nn.Module | None:
        gate = self._mlp(block).gate
        return None if gate is None else block.get_submodule(gate.module)

    def pre_activation(self, block: Any, projected: Tensor) -> Tensor:
        return projected[..., self._mlp(block).up.outputs.to(projected.device)]

    def activation_function(self, block: Any) -> Callable[[Tensor], Tensor]:
        name = self._mlp(block).activation
        return ACT2FN[name] if name in ACT2FN else block.get_submodule(name)

    def key_rows(self, block: Any) -> list[KeyRows]:
        found = self._mlp(block)
        parts = [found.up] if found.gate is None else [found.up, found.gate]
        return [KeyRows(block.get_submodule(part.module), part.outputs) for part in parts]

    def attention(self, block: Any) -> nn.Module:
        return block.get_submodule(self._heads(block).module)

    def _values(self, block: Any) -> Slice:
        found = self._heads(block).values
        if found is None:
            raise self.missing("values that are outputs of one linear map")
        return found

    def value_projection(self, block: Any) -> nn.Module:
        return block.get_submodule(self._values(block).module)

    def head_values(self, block: Any, projected: Tensor) -> Tensor:
        chosen = projected[..., self._values(block).outputs.to(projected.device)]
        return chosen.unflatten(-1, (self._heads(block).n_key_heads, -1))

    def pre_mlp_norm(self, block: Any) -> nn.Module | None:
        return self._norm(block, self._mlp(block))

    def pre_attention_norm(self, block: Any) -> nn.Module | None:
        return self._norm(block, self._heads(block))

    def _norm(self, block: Any, part: Mlp | Heads) -> nn.Module | None:
        if not part.reads:
            raise self.missing("keys that read the residual stream through one norm")
        return None if part.norm is None else block.get_submodule(part.norm)

    @property
    def last_norm(self) -> nn.Module | None:
        return self.tail.norm

    @property
    def last_projection(self) -> nn.Module | None:
        return self.tail.projection

    @property
    def parallel(self) -> bool:
        return self._part(self._blocks[0]).parallel

    @property
    def n_heads(self) -> int:
        heads = self._part(self._blocks[0]).heads
        return self.config.get_text_config().num_attention_heads if heads is None else heads.n_heads

    @property
    def n_key_heads(self) -> int:
        heads = self._part(self._blocks[0]).heads
        return self.n_heads if heads is None else heads.n_key_heads

    def final_norm(self, hidden: Tensor) -> Tensor:
        for part in (self.tail.norm, self.tail.projection):
            hidden = hidden if part is None else part(hidden)
        return hidden

    # -- what a summand becomes ----------------------------------------------------------------------------------

    def mlp_write(self, layer: int) -> Writing:
        return self._writing(layer, self._part(self._blocks[layer]).mlp)

    def attention_write(self, layer: int) -> Writing:
        return self._writing(layer, self._part(self._blocks[layer]).attention)

    def _writing(self, layer: int, write: Write | None) -> Writing:
        assert write is not None
        block = self._blocks[layer]
        norm = None if write.norm is None else block.get_submodule(write.norm)
        return Writing(block.get_submodule(write.part), norm, write.scale)


def _module(block: Any, write: Write | None) -> nn.Module:
    assert write is not None
    assert write.projection is not None
    return block.get_submodule(write.projection)


def parts_of_blocks(chain: Chain) -> list[BlockParts | None]:
    """The parts of every block; blocks with the same modules of the same shapes are looked at once."""
    known: dict[Any, BlockParts | None] = {}
    found = []
    for block, call in zip(chain.blocks, chain.calls, strict=True):
        kind = (
            tuple((name, type(part)) for name, part in block.named_modules()),
            tuple((name, weight.shape) for name, weight in block.named_parameters()),
        )
        if kind not in known:
            try:
                known[kind] = parts_of(BlockProbe(block, call))
            except Exception:
                known[kind] = None
        found.append(known[kind])
    return found
