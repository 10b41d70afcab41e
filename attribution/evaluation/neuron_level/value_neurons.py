"""The best value neurons of sentences by log-probability increase, the exact ones, of either site; query neurons."""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.reads import Reads, ValueSite
from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons, Sentences
from twinlens.attribution.neuron.bounded_search import TopUnits
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.query import ValueNeurons, query_neurons
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.neuron.static_scores import best_neurons
from twinlens.attribution.residual_protocol import ResidualModel

SCORE = "logprob_increase"
DISTINCT_IN = 2
"""Entries at positions per distinct attention neuron that are searched first."""


def ffn_values(sentences: Sentences, mode: Mode, top_k: int) -> TopUnits:
    """The `top_k` best FFN neurons."""
    return _values(sentences, "ffn", mode, top_k)


def attention_values(sentences: Sentences, mode: Mode, top_k: int) -> TopUnits:
    """The `top_k` best attention neurons at a position; a neuron stands there once per position."""
    return _values(sentences, "attn", mode, top_k)


def _values(sentences: Sentences, site: ValueSite, mode: Mode, top_k: int) -> TopUnits:
    """The first ones of the longest list that any evaluation of the pass reads."""
    asked, found = sentences.kept.get((site, mode), (0, None))
    if found is None or asked < top_k:
        asked = max(top_k, sentences.reads.values.get((site, mode), 0))
        states = sentences.states()
        units = (attention_units if site == "attn" else ffn_units)(sentences.model, states)
        readout = sentences.readout(mode)
        found = best_neurons(readout, units, SCORE, asked, sentences.room, known=found)
        sentences.kept[site, mode] = asked, found
    return found.first(top_k)


def distinct_attention_values(sentences: Sentences, mode: Mode, k: int) -> tuple[ListedNeurons, Tensor]:
    """The `k` best distinct attention neurons, whatever their position, and the scores at their best position.

    Lists at positions are asked twice as long until every sentence has `k` distinct neurons in its own.

    Returns:
        [batch, k] each.
    """
    model = sentences.model
    n_units = model.n_heads * model.head_dim
    k = min(k, model.n_layers * n_units)
    length = DISTINCT_IN * k
    while True:
        top = attention_values(sentences, mode, length)
        found = [_first_distinct(top, row, k, n_units) for row in range(len(top.layer))]
        if all(len(places) == k for places in found):
            break
        length *= 2
    places = torch.tensor(found, device=top.layer.device)
    layer, unit, score = (values.gather(1, places) for values in (top.layer, top.unit, top.score))
    return ListedNeurons(torch.ones_like(layer, dtype=torch.bool), layer, unit), score


def _first_distinct(top: TopUnits, row: int, k: int, n_units: int) -> list[int]:
    """Places of the first `k` distinct neurons of one list."""
    seen: dict[int, int] = {}
    addresses = (top.layer[row].long() * n_units + top.unit[row].long()).tolist()
    for place, address in enumerate(addresses):
        seen.setdefault(address, place)
    return list(seen.values())[:k]


def query_scores(sentences: Sentences, mode: Mode, n_asked: int) -> Tensor:
    """Scores of the query neurons of the `n_asked` best attention value neurons, [batch, layers, neurons]."""

    def compute() -> Tensor:
        asked = ValueNeurons.of(attention_values(sentences, mode, n_asked), sentences.states())
        return query_neurons(sentences.model, sentences.batch, asked, sentences.room, mode)

    return sentences.once(("queries", n_asked, mode), compute)


def ffn_list(top: TopUnits) -> ListedNeurons:
    """A list of FFN neurons."""
    return ListedNeurons(torch.zeros_like(top.layer, dtype=torch.bool), top.layer, top.unit)


def joined(first: ListedNeurons, second: ListedNeurons) -> ListedNeurons:
    """Both lists, one behind the other."""
    parts = ((getattr(neurons, name) for neurons in (first, second)) for name in ("attention", "layer", "unit"))
    return ListedNeurons(*(torch.cat([*part], 1) for part in parts))


def shared_operations(reads: Reads, model: ResidualModel, tokens: int, forward: float) -> float:
    """Floating-point operations of one sentence for all that is read of it, roughly.

    Args:
        tokens: of the sentence.
        forward: operations of one forward.
    """
    total = forward * (reads.states + reads.original)
    for (site, _), k in reads.values.items():
        total += NeuronScore(SCORE, site, top_k=k).operations(model, tokens)
    for n_asked, _ in reads.queries:  # keys and their products with every neuron's value, a forward each
        total += 2 * forward + 4.0 * n_asked * model.n_layers * model.n_neurons * model.hidden_size
    return total
