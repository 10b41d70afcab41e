"""The best value neurons of sentences by log-probability increase, the exact ones, of either site."""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons
from twinlens.attribution.neuron.bounded_search import TopUnits
from twinlens.attribution.neuron.increase import Units
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import NeuronScore, Site
from twinlens.attribution.neuron.readout import Readout
from twinlens.attribution.neuron.static_scores import best_neurons
from twinlens.attribution.residual_protocol import ResidualModel, ResidualStates

SCORE = "logprob_increase"


def ffn_values(
    model: ResidualModel, states: ResidualStates, readout: Readout, top_k: int, memory_budget: int
) -> TopUnits:
    """The `top_k` best FFN neurons."""
    return best_neurons(readout, ffn_units(model, states), SCORE, top_k, memory_budget)


def attention_values(
    model: ResidualModel, states: ResidualStates, readout: Readout, top_k: int, memory_budget: int
) -> TopUnits:
    """The `top_k` best attention neurons at a position; a neuron stands there once per position."""
    return best_neurons(readout, attention_units(model, states), SCORE, top_k, memory_budget)


def distinct_attention_values(
    model: ResidualModel, states: ResidualStates, readout: Readout, k: int, memory_budget: int
) -> tuple[ListedNeurons, Tensor]:
    """The `k` best distinct attention neurons, whatever their position, and the scores at their best position.

    Lists at positions are asked twice as long until every sentence has `k` distinct neurons in its own.

    Returns:
        [batch, k] each.
    """
    units = attention_units(model, states)
    k = min(k, units.n_layers * units.coefficient.shape[2])
    length = 2 * k
    while True:
        top = best_neurons(readout, units, SCORE, length, memory_budget)
        found = [_first_distinct(top, row, k, units) for row in range(len(top.layer))]
        if all(len(places) == k for places in found):
            break
        length *= 2
    places = torch.tensor(found, device=top.layer.device)
    layer, unit, score = (values.gather(1, places) for values in (top.layer, top.unit, top.score))
    return ListedNeurons(torch.ones_like(layer, dtype=torch.bool), layer, unit), score


def _first_distinct(top: TopUnits, row: int, k: int, units: Units) -> list[int]:
    """Places of the first `k` distinct neurons of one list."""
    n_units = units.coefficient.shape[2]
    seen: dict[int, int] = {}
    addresses = (top.layer[row].long() * n_units + top.unit[row].long()).tolist()
    for place, address in enumerate(addresses):
        seen.setdefault(address, place)
    return list(seen.values())[:k]


def ffn_list(top: TopUnits) -> ListedNeurons:
    """A list of FFN neurons."""
    return ListedNeurons(torch.zeros_like(top.layer, dtype=torch.bool), top.layer, top.unit)


def joined(first: ListedNeurons, second: ListedNeurons) -> ListedNeurons:
    """Both lists, one behind the other."""
    parts = ((getattr(neurons, name) for neurons in (first, second)) for name in ("attention", "layer", "unit"))
    return ListedNeurons(*(torch.cat([*part], 1) for part in parts))


def search_operations(model: ResidualModel, tokens: int, ffn: int = 0, attention: int = 0) -> float:
    """Floating-point operations of one sentence's searches for so many value neurons of either site, roughly."""
    sites: tuple[tuple[Site, int], ...] = (("ffn", ffn), ("attn", attention))
    return sum(NeuronScore(SCORE, site, top_k=k).operations(model, tokens) for site, k in sites if k)
