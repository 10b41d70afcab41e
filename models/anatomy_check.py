"""Parts of a model that are verified against its own forward before anybody reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from twinlens.attribution.errors import UserError
from twinlens.models.anatomy import STILL, Anatomy
from twinlens.models.forwards import backbone_arguments, first


@torch.no_grad()
def build_anatomy(backbone: PreTrainedModel, tolerance: float | None = None) -> Anatomy:
    """The verified parts of a backbone.

    Runs three tokens through the model and checks, for every layer, that the parts which were found compose to the
    model's own result: attention output + residual + MLP output = block output, activation · value rows + bias =
    MLP output, and final norm(last block) = the backbone's output. `tolerance` is relative to the largest entry; None
    allows for the rounding of the model's own type.

    Raises:
        UserError: naming the identity and layer that fails.
    """
    anatomy = Anatomy(backbone)
    seen = _record(anatomy)
    if tolerance is None:
        tolerance = max(1e-4, 8 * torch.finfo(seen["output"][0].dtype).eps)
    for layer in range(anatomy.n_layers):
        down: Any = anatomy.down_projection(anatomy.blocks[layer])
        act = seen["activation"][layer]
        bias = 0 if down.bias is None else down.bias
        require_equal(
            act @ anatomy.value_rows(layer) + bias, seen["mlp"][layer], "activation · values", layer, anatomy, tolerance
        )
        attention = anatomy.attention_write(layer)(seen["attention"][layer])
        parts = seen["input"][layer] + attention + anatomy.mlp_write(layer)(seen["mlp"][layer])
        require_equal(
            parts, seen["output"][layer], "residual + attention + MLP = block output", layer, anatomy, tolerance
        )
    final = anatomy.final_norm(seen["output"][-1])
    require_equal(final, seen["final"][0], "final norm = backbone output", anatomy.n_layers - 1, anatomy, tolerance)
    return anatomy


def _record(anatomy: Anatomy) -> dict[str, list[Tensor]]:
    """Inputs and outputs of every part during one forward over three tokens."""
    backbone = anatomy.backbone
    seen: dict[str, list[Tensor]] = {k: [] for k in ("input", "output", "attention", "activation", "mlp")}
    device = next(backbone.parameters()).device
    ids = torch.arange(1, 4, device=device)[None] % backbone.config.vocab_size
    shape = (1, 3, -1)

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            seen[name].append(tensor.reshape(shape).clone())  # whoever comes next may add to it in place

        return hook

    handles = []
    for block in anatomy.blocks:
        handles += [
            block.register_forward_pre_hook(lambda m, a, kw: seen["input"].append(first(a, kw)), with_kwargs=True),
            block.register_forward_hook(keep("output")),
            anatomy.attention_output(block).register_forward_hook(keep("attention")),
            anatomy.down_projection(block).register_forward_hook(keep("mlp")),
            anatomy.down_projection(block).register_forward_pre_hook(
                lambda m, a: seen["activation"].append(a[0].reshape(shape))
            ),
        ]
    try:
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        final = backbone(**backbone_arguments(anatomy.backbone, batch), use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return {**seen, "final": [final]}


def require_equal(got: Tensor, expected: Tensor, identity: str, layer: int, anatomy: Anatomy, tolerance: float) -> None:
    """Refuse a model of which an identity fails by more than `tolerance` of the largest entry."""
    error = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not error <= tolerance:
        raise UserError(
            f"'{identity}' fails in layer {layer} of the {anatomy.config.model_type} model with relative error "
            f"{error:.1e}, so that its neurons would have wrong scores; expected at most {tolerance:.0e}: choose "
            f"another model, or {STILL}."
        )
