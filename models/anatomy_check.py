"""Parts of a model that are verified against its own forward before anybody reads them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from twinlens.attribution.errors import UserError
from twinlens.models.anatomy import STILL, Anatomy
from twinlens.models.forwards import backbone_arguments
from twinlens.models.recording import recording
from twinlens.models.structure import UnknownParts


@torch.no_grad()
def build_anatomy(backbone: PreTrainedModel, tolerance: float | None = None) -> Anatomy:
    """The verified parts of a backbone.

    Runs three tokens through the model and checks, for every layer, that the parts which were found compose to the
    model's own result: attention output + residual + MLP output = block output, activation · value rows + bias =
    MLP output (a mixture's over all experts), and final norm(last block) = the backbone's output. `tolerance` is
    relative to the largest entry; None allows for the rounding of the model's own type.

    Raises:
        UserError: naming the identity and layer that fails.
    """
    anatomy = Anatomy(backbone)
    seen, final = _record(anatomy)
    if tolerance is None:
        tolerance = max(1e-4, 8 * torch.finfo(final.dtype).eps)
    for layer in range(anatomy.n_layers):
        got = seen["activation"][layer] @ anatomy.value_rows(layer) + anatomy.constant(layer)
        require_equal(got, seen["mlp_output"][layer], "activation · values", layer, anatomy, tolerance)
        got = seen["residual"][layer] + anatomy.attention_write(layer)(seen["attention_output"][layer])
        got = got + anatomy.mlp_write(layer)(seen["mlp_output"][layer])
        identity = "residual + attention + MLP = block output"
        require_equal(got, seen["leaving"][layer], identity, layer, anatomy, tolerance)
    got = anatomy.final_norm(seen["leaving"][-1])
    require_equal(got, final, "final norm = backbone output", anatomy.n_layers - 1, anatomy, tolerance)
    return anatomy


def _record(anatomy: Anatomy) -> tuple[dict[str, list[Tensor]], Tensor]:
    """Inputs and outputs of every part during one forward over three tokens, and its final hidden states."""
    backbone = anatomy.backbone
    names = ("residual", "activation", "mlp_output", "attention_output", "leaving")
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    ids = torch.arange(1, 4, device=next(backbone.parameters()).device)[None] % backbone.config.vocab_size
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with recording(anatomy, ids.shape, lambda name, layer, tensor: seen[name].append(tensor.clone()), *names):
        final = backbone(**backbone_arguments(backbone, batch), use_cache=False).last_hidden_state
    return seen, final


def require_equal(got: Tensor, expected: Tensor, identity: str, layer: int, anatomy: Anatomy, tolerance: float) -> None:
    """Refuse a model of which an identity fails by more than `tolerance` of the largest entry."""
    error = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not error <= tolerance:
        raise UserError(
            f"'{identity}' fails in layer {layer} of the {anatomy.config.model_type} model with relative error "
            f"{error:.1e}, so that its neurons would have wrong scores; expected at most {tolerance:.0e}: choose "
            f"another model, or {STILL}."
        )


def require_parts(backbone: Any, attention: bool, keys: bool = False, norms: bool = False) -> None:
    """Refuse a model, before it has values, whose parts no engine could read; one that is not known yet passes.

    Args:
        attention: whether attention weights and values are read, as for scores of attention neurons or heads.
        keys: whether it is read what activates FFN neurons.
        norms: whether it is read through which norms neurons and values read the residual stream.

    Raises:
        UserError: see `Anatomy`.
    """
    with suppress(UnknownParts):
        anatomy = Anatomy(backbone)
        for block in anatomy.blocks:
            if attention:
                anatomy.value_projection(block)
            if keys:
                anatomy.key_rows(block)
            if norms:
                anatomy.pre_mlp_norm(block)
                anatomy.pre_attention_norm(block)
