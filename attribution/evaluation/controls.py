"""Random controls of neuron lists."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.counter_random import uniform
from twinlens.attribution.neuron.ranking import FIRST_ATTENTION

Control = Literal["uniform", "matched"]
CONTROL = "random_neurons"
"""Method name of random controls in results."""


def matched_list(
    layer: Tensor,
    unit: Tensor,
    n_layers: int,
    n_neurons: int,
    index: Tensor,
    seed: int,
    n_attention: int = 0,
    present: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A random list with as many distinct neurons of each layer and site as the given one, among its first r for all r.

    The units of each layer and site are permuted at random, so entries that name the same neuron still do.

    Args:
        layer, unit: the list, best first, [batch, r]; −1: it has ended.
        index: row of each example in its split, [batch]; the list is a function of (seed, example, list).
        n_attention: attention neurons of a layer, whose units have `FIRST_ATTENTION` added; 0: the list has none.
        present: FFN neurons that each example has, bool [batch, layers, neurons]: of experts those that its token was
            sent to. Neurons that it has are drawn among these, others among the others; None: it has all.

    Returns:
        layers and units, [batch, r] each.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.controls import matched_list
        >>> layer, unit = torch.tensor([[0, 1, 1]]), torch.tensor([[5, 2, 7]])
        >>> drawn, units = matched_list(layer, unit, n_layers=2, n_neurons=8, index=torch.tensor([0]), seed=0)
        >>> bool((drawn == layer).all()), units.shape  # the same layers, other neurons
        (True, torch.Size([1, 3]))
    """
    drawn = _permuted(layer, unit.clamp(max=n_neurons - 1), n_layers, n_neurons, index, seed, present=present)
    if n_attention:
        own = (unit - FIRST_ATTENTION).clamp(0, n_attention - 1)
        # numbers behind those of the FFN neurons, so that the two sites are drawn apart
        other = _permuted(layer, own, n_layers, n_attention, index, seed, first=n_layers * n_neurons)
        drawn = torch.where(unit >= FIRST_ATTENTION, other + FIRST_ATTENTION, drawn)
    return layer, torch.where(layer < 0, unit, drawn)


def _permuted(
    layer: Tensor,
    unit: Tensor,
    n_layers: int,
    n_units: int,
    index: Tensor,
    seed: int,
    first: int = 0,
    present: Tensor | None = None,
) -> Tensor:
    noise = uniform(seed, index, torch.arange(first, first + n_layers * n_units, device=index.device))
    noise = noise.unflatten(1, (n_layers, n_units))
    place = torch.arange(n_units, device=index.device).expand_as(noise)
    if present is not None:  # those that are there first, in their order, then the others
        noise = noise + 2 * ~present
        place = (~present).to(torch.int8).argsort(dim=-1, stable=True).argsort(dim=-1)
    order = noise.argsort(dim=-1, stable=True)
    rows = torch.arange(len(index), device=index.device)[:, None]
    layer, unit = layer.long().clamp(min=0), unit.clamp(min=0)
    return order[rows, layer, place[rows, layer, unit.long()]].to(unit.dtype)
