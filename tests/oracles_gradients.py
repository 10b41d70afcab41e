"""Gradients of linear layers by the plain way: one example, one loss, `torch.autograd.grad` on the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from attribution.base import LinearLayer


def layer_gradients(
    layers: Sequence[LinearLayer], loss_of: Callable[[Mapping[str, Tensor]], Tensor], batch: Mapping[str, Tensor]
) -> list[Tensor]:
    """Each example's gradient in each layer, a list of [examples, d_out, d_in + bias].

    Args:
        layers: the layers; their parameters are made to require gradients.
        loss_of: a batch of one example → its loss.
        batch: all examples; every tensor has one row for each.
    """
    parameters = [p for layer in layers for p in parameters_of(layer.module)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    rows: list[list[Tensor]] = [[] for _ in layers]
    for example in range(len(batch["labels"])):
        loss = loss_of({name: values[example : example + 1] for name, values in batch.items()})
        gradients = iter(torch.autograd.grad(loss, parameters))
        for number, layer in enumerate(layers):
            weight = next(gradients)
            weight = weight.T if isinstance(layer.module, Conv1D) else weight
            parts = [weight, next(gradients)[:, None]] if layer.has_bias else [weight]
            rows[number].append(torch.cat(parts, 1))
    for parameter in parameters:
        parameter.requires_grad_(False)
    return [torch.stack(row) for row in rows]


def parameters_of(module: nn.Module) -> list[nn.Parameter]:
    """Weight and, where there is one, bias."""
    bias = getattr(module, "bias", None)
    return [module.weight] if bias is None else [module.weight, bias]  # type: ignore[list-item]
