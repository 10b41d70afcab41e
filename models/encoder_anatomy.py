"""Parts of an encoder's blocks, found by identities: the projections behind its neurons, and what they are added to.

A block of BERT's kind puts a norm behind each sum: x_out = N₂(h + M), h = N₁(x + A). One of ModernBERT's kind adds to
its stream as decoders do: x_out = x + A + M. Either way M is a linear map of the FFN neurons and A one of the
attention's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import ExpertPlaces
from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy import STILL, Writing
from twinlens.models.block_probe import BlockProbe, is_linear, same
from twinlens.models.chain import chain_of, eagerly
from twinlens.models.discovery import Mlp, Write, neurons_of, parts_of
from twinlens.models.linear_layers import projection_shape
from twinlens.models.neuron_parts import NeuronParts
from twinlens.models.twin import twin_of

_KNOWN: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""What was found of each model; weights that change in a fit leave its structure as it is."""


@dataclass(frozen=True)
class EncoderBlock:
    """Names of a block's parts within it.

    Attributes:
        down, attention: linear maps behind FFN neurons and attention neurons.
        norm: reads the sum that the block ends with; None: the block puts out the sum itself.
        mlp: what makes the FFN neurons; None: it was not found.
    """

    down: str
    attention: str
    norm: str | None
    mlp: Mlp | None


class EncoderAnatomy(NeuronParts):
    """The parts of an encoder by what they do; stands where `twinlens.models.anatomy.Anatomy` stands for decoders.

    Args:
        backbone: the transformers base model (no head), in eval mode, with values.

    Raises:
        UserError: there is no chain of blocks, or a block is no sum of its input and two linear maps.
    """

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.config = backbone.config
        chain = chain_of(backbone)
        if chain is None:
            raise self._refusal("has no chain of blocks in which each output is the next one's input")
        self.blocks = chain.blocks
        with eagerly(backbone):
            found = [_parts(BlockProbe(block, call)) for block, call in zip(chain.blocks, chain.calls, strict=True)]
        self.parts: dict[Any, EncoderBlock] = {}
        for layer, (block, part) in enumerate(zip(self.blocks, found, strict=True)):
            if part is None:
                raise self._refusal(f"has a block ({layer}) that is no sum of its input and of two linear maps")
            self.parts[block] = part
        self.n_layers = len(self.blocks)
        self.n_neurons, self.hidden_size = projection_shape(self.down_projection(self.blocks[0]))
        self.n_heads = int(self.config.num_attention_heads)
        self.head_dim = projection_shape(self.attention_output(self.blocks[0]))[0] // self.n_heads

    experts: ExpertPlaces | None = None
    """No block is a mixture."""

    def _refusal(self, what: str) -> UserError:
        return UserError(
            f"the {self.config.model_type} encoder {what}, so that its neurons are not found; expected one of the kind "
            f"of BERT or ModernBERT: choose another model, or {STILL}."
        )

    @property
    def gated(self) -> bool:
        """Whether the activation is no function of the up-projection alone."""
        return any(part.mlp is None or part.mlp.gate is not None for part in self.parts.values())

    def down_projection(self, block: Any) -> Any:
        """The linear map behind the FFN neurons."""
        return block.get_submodule(self.parts[block].down)

    def attention_output(self, block: Any) -> Any:
        """The linear map behind the attention neurons."""
        return block.get_submodule(self.parts[block].attention)

    def closing_norm(self, block: Any) -> nn.Module | None:
        """What reads the sum that the block ends with; None: nothing does."""
        name = self.parts[block].norm
        return None if name is None else block.get_submodule(name)

    def value_rows(self, layer: int) -> Tensor:
        """Down-projection rows, [neurons, hidden]."""
        return projection_rows(self.down_projection(self.blocks[layer]))

    def mlp_write(self, layer: int) -> Writing:
        """What the down-projection's output becomes on its way into the sum: itself."""
        return Writing(self.down_projection(self.blocks[layer]))

    def _mlp(self, block: Any) -> Mlp:
        found = self.parts[block].mlp
        if found is None:
            raise self._refusal("shows no activation made of an up-projection")
        return found


def require_encoder_parts(backbone: Any) -> None:
    """Refuse an encoder, before it has values, whose neurons are not found; one that has no small twin passes.

    Raises:
        UserError: see `EncoderAnatomy`.
    """
    twin = twin_of(backbone)
    if twin is not None:
        EncoderAnatomy(twin)


def _parts(probe: BlockProbe) -> EncoderBlock | None:
    return _behind_norms(probe) or _added(probe)


def _added(probe: BlockProbe) -> EncoderBlock | None:
    """A block that puts out its input with two summands."""
    found = parts_of(probe)
    if found is None or found.mlp is None or found.attention is None:
        return None
    plain = found.mlp.norm is None and found.mlp.scale == 1
    if not plain or found.mlp.projection is None or found.attention.projection is None:
        return None
    return EncoderBlock(found.mlp.projection, found.attention.projection, None, found.neurons)


def _behind_norms(probe: BlockProbe) -> EncoderBlock | None:
    """A block that puts out a norm of its second sum, whose first one is behind a norm as well."""
    entering, leaving = probe.flat(probe.hidden), probe.flat(probe.written)
    for name, seen in probe.seen.items():
        if is_linear(seen.module) or not same(seen.written, leaving, probe.rounding) or any(seen.module.children()):
            continue
        if seen.read is None or same(seen.read, seen.written, probe.rounding):
            continue
        down = _summand(probe, seen.read, None)
        if down is None:
            continue
        between = seen.read - _written(probe, down)
        first = next((n for n, s in probe.seen.items() if same(s.written, between, probe.rounding)), None)
        for norm in probe.seen.values() if first else ():
            if is_linear(norm.module) or not same(norm.written, between, probe.rounding) or norm.read is None:
                continue
            attention = _summand(probe, norm.read, entering)
            if attention is not None:
                mlp = neurons_of(probe, Write(down, 1.0, down, None), between)
                return EncoderBlock(down, attention, name, mlp)
    return None


def _summand(probe: BlockProbe, total: Tensor, other: Tensor | None) -> str | None:
    """The linear map whose output is a sum less its other summand: `other`, or what any module without linear maps
    writes."""
    linear = [name for name, seen in probe.seen.items() if is_linear(seen.module) and seen.written is not None]
    for name in linear:
        written = _written(probe, name)
        if written.shape != total.shape:
            continue
        rest = total - written
        if other is not None and same(rest, other, probe.rounding):
            return name
        if other is None and any(
            same(seen.written, rest, probe.rounding) and not is_linear(seen.module) for seen in probe.seen.values()
        ):
            return name
    return None


def _written(probe: BlockProbe, name: str) -> Tensor:
    written = probe.seen[name].written
    assert written is not None
    return written


def encoder_anatomy(backbone: Any) -> EncoderAnatomy:
    """The verified parts of an encoder; what is found once is kept.

    Raises:
        UserError: see `EncoderAnatomy` and `require_same_states`.
    """
    if backbone not in _KNOWN:
        _KNOWN[backbone] = EncoderAnatomy(backbone)
    require_same_states(_KNOWN[backbone])
    return _KNOWN[backbone]


@torch.no_grad()
def require_same_states(anatomy: EncoderAnatomy) -> None:
    """Check the identity of every layer's projection in the model's own forward at its present weights, as closely as
    the type of its numbers shows it.

    Raises:
        UserError: naming the layer.
    """
    ids = (3 + torch.arange(5, device=next(anatomy.backbone.parameters()).device))[None]
    ids = ids % anatomy.config.vocab_size
    seen: dict[Any, tuple[Tensor, Tensor]] = {}
    handles = [
        anatomy.down_projection(block).register_forward_hook(
            lambda m, args, out, block=block: seen.__setitem__(block, (args[0], out))
        )
        for block in anatomy.blocks
    ]
    try:
        anatomy.backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    for layer, block in enumerate(anatomy.blocks):
        read, written = seen[block]
        bias = anatomy.down_projection(block).bias
        made = read @ anatomy.value_rows(layer) + (0 if bias is None else bias)
        if not same(made, written, max(1e-4, 8 * torch.finfo(written.dtype).eps)):
            raise UserError(
                f"'activation · values = MLP output' fails in layer {layer} of the {anatomy.config.model_type} "
                f"encoder, so that its neurons would have wrong scores; expected equal numbers: choose another model, "
                f"or {STILL}."
            )
