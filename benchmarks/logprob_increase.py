"""Log-probability increase at a model's own width and vocabulary: search, dense form, and one neuron at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from benchmarks.pairs import Timed, progress, timed
from twinlens.attribution.neuron.bounded_search import top_units
from twinlens.attribution.neuron.increase import Units, dense_increases
from twinlens.attribution.neuron.logprob_increase import ffn_units
from twinlens.attribution.neuron.readout import Readout, readout_of
from twinlens.attribution.residual_protocol import ResidualStates
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.residual import ResidualEngine
from twinlens.models.residual_identities import build_residual

MEMORY_BUDGET = 1 << 30


@dataclass(frozen=True)
class Subject:
    """Sentences under a model with random weights, their targets the model's own top tokens.

    Attributes:
        model, states, readout: the sentences' residual stream, taken outside the clock for all sides alike.
        units: all FFN neurons.
        top_k: length of the list that is asked for.
    """

    model: ResidualEngine
    states: ResidualStates
    readout: Readout
    units: Units
    top_k: int


def build_subject(config: GPT2Config, n_sentences: int, n_tokens: int, top_k: int, seed: int = 0) -> Subject:
    """A random model of the given shape with its embedding as readout."""
    torch.manual_seed(seed)
    backbone = GPT2Model(config).eval().requires_grad_(False)
    readout = nn.Linear(config.n_embd, config.vocab_size, bias=False)
    readout.weight = backbone.wte.weight
    model = build_residual(build_anatomy(backbone), readout)
    ids = torch.randint(0, config.vocab_size, (n_sentences, n_tokens))
    states = model.states({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, attention=False)
    frozen = readout_of(model, states, states.scores.argmax(-1))
    return Subject(model, states, frozen, ffn_units(model, states), top_k)


def search(subject: Subject) -> Timed[Tensor]:
    """The best neurons of every sentence, [sentences, 3, top_k]: layer, unit, exact score."""

    def run() -> Tensor:
        top = top_units(subject.readout, subject.units, subject.top_k, MEMORY_BUDGET)
        return torch.stack([top.layer.double(), top.unit.double(), top.score.double()], 1)

    return timed(run)


def dense(subject: Subject) -> Timed[Tensor]:
    """The same lists from the scores of every neuron."""

    def run() -> Tensor:
        layers = [found[..., 0] for _, found in dense_increases(subject.readout, subject.units, MEMORY_BUDGET)]
        scores = torch.stack(layers, 1)
        ordered, place = scores.flatten(1).sort(dim=1, descending=True, stable=True)
        place, n_units = place[:, : subject.top_k], scores.shape[2]
        ordered = ordered[:, : subject.top_k].double()
        return torch.stack([(place // n_units).double(), (place % n_units).double(), ordered], 1)

    return timed(run)


def dense_part(subject: Subject, layer: int, n_units: int) -> Timed[Tensor]:
    """Scores of a layer's first neurons, [sentences, n_units], all neurons of the layer on the clock."""

    def run() -> Tensor:
        rows = slice(layer, layer + 1)
        units = Units(
            subject.units.base[:, rows],
            subject.units.coefficient[:, rows],
            lambda _: subject.units.values(layer),
            positional=False,
        )
        ((_, found),) = dense_increases(subject.readout, units, MEMORY_BUDGET)
        return found[:, :n_units, 0]

    return timed(run)


def loop_part(subject: Subject, layer: int, n_units: int) -> Timed[Tensor]:
    """One sentence and one neuron at a time, as the notebooks of the second paper do: project, log-softmax, subtract.

    The first `n_units` neurons of a layer are timed, and the time scaled to the whole layer.
    """
    model, states, targets = subject.model, subject.states, subject.readout.target.tolist()
    weight, norm = model.output_weight, model.final_norm
    assert weight is not None
    assert norm.weight is not None
    assert norm.bias is not None
    scale, bias = norm.weight, norm.bias

    def log_prob(x: Tensor, sentence: int) -> Tensor:
        features = (x - x.mean()) / states.statistic[sentence] * scale + bias
        return (weight @ features).log_softmax(-1)[targets[sentence]]

    def increases(sentence: int) -> Tensor:
        x = states.residual[sentence, layer] + states.attention_output[sentence, layer]
        before, rows, coefficient = log_prob(x, sentence), model.values(layer), states.activation[sentence, layer]
        return torch.stack([log_prob(x + coefficient[n] * rows[n], sentence) - before for n in range(n_units)])

    part = timed(lambda: torch.stack([increases(sentence) for sentence in range(len(targets))]))
    return Timed(part.seconds * model.n_neurons / n_units, part.result, [part.seconds])


def list_difference(ours: Tensor, peer: Tensor) -> float:
    """Largest difference of scores relative to a sentence's best; infinite where the lists hold other neurons.

    Neurons whose scores differ by rounding alone may change places at the list's end.
    """
    worst = 0.0
    for left, right in zip(ours, peer, strict=True):
        best, last = float(right[2, 0]), float(right[2, -1])
        worst = max(worst, float((left[2] - right[2]).abs().max()) / abs(best))
        found, expected = ({(int(a), int(b)): c for a, b, c in rows.T.tolist()} for rows in (left, right))
        for neuron in found.keys() ^ expected.keys():
            score = found.get(neuron, expected.get(neuron, 0.0))
            if abs(score - last) > 1e-5 * abs(best):
                progress(f"neuron {neuron} with score {score:.3e} stands in one list alone")
                return float("inf")
    return worst


def score_difference(ours: Tensor, peer: Tensor) -> float:
    """Largest difference relative to the largest score."""
    return float((ours - peer).abs().max() / peer.abs().max())
