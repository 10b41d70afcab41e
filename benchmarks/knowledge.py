"""Log-probability increase at a model's own width and vocabulary: search, dense form, and one neuron at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from attribution.base import ResidualStates
from attribution.neuron.bounded_search import TopUnits, top_units
from attribution.neuron.increase import Units, dense_increases
from attribution.neuron.logprob_increase import ffn_units
from attribution.neuron.readout import Readout, readout_of
from benchmarks.pairs import Timed, progress, timed
from models.anatomy import build_anatomy
from models.residual import ResidualEngine
from models.residual_identities import build_residual

MEMORY_BUDGET = 1 << 30


@dataclass(frozen=True)
class Subject:
    """One sentence under a model with random weights, its target the model's own top token.

    Attributes:
        model, states, readout: the sentence's residual stream, taken outside the clock for all sides alike.
        units: all FFN neurons.
        top_k: length of the list that is asked for.
    """

    model: ResidualEngine
    states: ResidualStates
    readout: Readout
    units: Units
    top_k: int


def build_subject(config: GPT2Config, n_tokens: int, top_k: int, seed: int = 0) -> Subject:
    """A random model of the given shape with its embedding as readout."""
    torch.manual_seed(seed)
    backbone = GPT2Model(config).eval().requires_grad_(False)
    readout = nn.Linear(config.n_embd, config.vocab_size, bias=False)
    readout.weight = backbone.wte.weight
    model = build_residual(build_anatomy(backbone), readout)
    ids = torch.randint(0, config.vocab_size, (1, n_tokens))
    states = model.states({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, attention=False)
    frozen = readout_of(model, states, states.scores.argmax(-1))
    return Subject(model, states, frozen, ffn_units(model, states), top_k)


def search(subject: Subject) -> Timed[Tensor]:
    """Exact scores of the best neurons with their addresses, [3, top_k]: layer, unit, score."""

    def run() -> Tensor:
        return addresses(top_units(subject.readout, subject.units, subject.top_k, MEMORY_BUDGET))

    return timed(run)


def addresses(top: TopUnits) -> Tensor:
    """One sentence's list as float64 [3, top_k]."""
    return torch.stack([top.layer[0].double(), top.unit[0].double(), top.score[0].double()])


def dense(subject: Subject) -> Timed[Tensor]:
    """The same list from the scores of every neuron."""

    def run() -> Tensor:
        layers = [found[0, :, 0] for _, found in dense_increases(subject.readout, subject.units, MEMORY_BUDGET)]
        scores = torch.stack(layers)
        ordered, place = scores.flatten().sort(descending=True, stable=True)
        place, n_units = place[: subject.top_k], scores.shape[1]
        return torch.stack([(place // n_units).double(), (place % n_units).double(), ordered[: subject.top_k].double()])

    return timed(run)


def dense_part(subject: Subject, layer: int, n_units: int) -> Timed[Tensor]:
    """Scores of the first neurons of a layer, in the order of their numbers, all of the layer on the clock."""

    def run() -> Tensor:
        rows = slice(layer, layer + 1)
        units = Units(
            subject.units.base[:, rows],
            subject.units.coefficient[:, rows],
            lambda _: subject.units.values(layer),
            positional=False,
        )
        ((_, found),) = dense_increases(subject.readout, units, MEMORY_BUDGET)
        return found[0, :n_units, 0]

    return timed(run)


def loop_part(subject: Subject, layer: int, n_units: int) -> Timed[Tensor]:
    """One neuron at a time, as the notebooks of paper 2 do: project, log-softmax, subtract.

    The first `n_units` neurons of a layer are timed, and the time scaled to the whole layer.
    """
    model, states = subject.model, subject.states
    weight = model.output_weight
    assert weight is not None
    target = int(subject.readout.target[0])
    norm = model.final_norm
    assert norm.weight is not None
    assert norm.bias is not None
    scale, bias = norm.weight, norm.bias

    def log_prob(x: Tensor) -> Tensor:
        features = (x - x.mean()) / states.statistic[0] * scale + bias
        return (weight @ features).log_softmax(-1)[target]

    def run() -> Tensor:
        x = states.residual[0, layer] + states.attention_output[0, layer]
        before, rows = log_prob(x), model.values(layer)
        coefficient = states.activation[0, layer]
        return torch.stack([log_prob(x + coefficient[n] * rows[n]) - before for n in range(n_units)])

    part = timed(run)
    return Timed(part.seconds * model.n_neurons / n_units, part.result, [part.seconds])


def list_difference(ours: Tensor, peer: Tensor) -> float:
    """Largest difference of scores relative to the best; infinite where a neuron of one list is not in the other.

    Neurons whose scores differ by rounding alone may change places at the list's end.
    """
    difference = float((ours[2] - peer[2]).abs().max() / peer[2].abs().max())
    left, right = ({(int(a), int(b)): float(c) for a, b, c in rows.T.tolist()} for rows in (ours, peer))
    last = float(peer[2, -1])
    for neuron in left.keys() ^ right.keys():
        score = left.get(neuron, right.get(neuron, 0.0))
        if abs(score - last) > 1e-5 * abs(float(peer[2, 0])):
            progress(f"lpi_topk_vs_dense: neuron {neuron} stands in one list alone")
            return float("inf")
    return difference


def score_difference(ours: Tensor, peer: Tensor) -> float:
    """Largest difference relative to the largest score."""
    return float((ours - peer).abs().max() / peer.abs().max())
