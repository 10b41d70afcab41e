"""Random controls of neuron lists."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attribution.counter_random import uniform

Control = Literal["uniform", "matched"]
CONTROL = "random_neurons"
"""Method name of random controls in results."""


def matched_list(
    layer: Tensor, unit: Tensor, n_layers: int, n_neurons: int, index: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """A random list with as many distinct neurons of each layer as the given one, among its first r for every r.

    The units of each layer are permuted at random, so entries that name the same neuron still do.

    Args:
        layer, unit: the list, best first, [batch, r]; −1: it has ended.
        index: row of each example in its split, [batch]; the list is a function of (seed, example, list).

    Returns:
        layers and units, [batch, r] each.
    """
    noise = uniform(seed, index, torch.arange(n_layers * n_neurons, device=index.device))
    order = noise.unflatten(1, (n_layers, n_neurons)).argsort(dim=-1, stable=True)
    rows = torch.arange(len(index), device=index.device)[:, None]
    drawn = order[rows, layer.long().clamp(min=0), unit.long().clamp(min=0)].to(unit.dtype)
    return layer, torch.where(layer < 0, unit, drawn)
