"""Sums of neurons' log-probability increases beside those of the best ones (second paper, Tables 5 and 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences, limited, means, require_counts
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.increase import Units
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import outputs_of
from twinlens.attribution.neuron.readout import Mode, Readout, readout_of
from twinlens.attribution.neuron.series_increases import series_increases
from twinlens.attribution.residual_protocol import ResidualModel


class ImportanceSums:
    """Sum over all neurons, over those with a positive increase, and over the best; nats.

    Attention neurons count once per position, as the paper's scores do. Every neuron is scored, see `series_increases`.

    Args:
        top: numbers of best neurons; the paper's 100 and 200.
        largest_share: on small models at most this share of a site's neurons.
        mode: `corrected`: with the final norm's bias; `notebook`: without.

    Raises:
        UserError: a count of nothing.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.importance_sums import ImportanceSums
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = ImportanceSums(top=[3], largest_share=0.5)
        >>> rows = test.evaluate(test.answers(sentences), prompts)
        >>> of_ffn = [row for row in rows if row.reference_group == "ffn" and row.group == ""]
        >>> [(row.metric, round(row.value, 2)) for row in of_ffn]  # nats, mean over sentences
        [('increase_all', 1.28), ('increase_positive', 2.82), ('increase_top', 1.75)]
    """

    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(self, top: Sequence[int] = (100, 200), largest_share: float = 0.05, mode: Mode = "corrected") -> None:
        self.top = sorted(set(top))
        require_counts("importance_sums", top=self.top[0] if self.top else 0, largest_share=largest_share)
        self.largest_share = largest_share
        self.mode: Mode = mode

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """`attention` and `ffn`: all, positive and each of `top`, [batch, 2 + counts]; `attention_distinct` [batch,
        counts]: neurons among these entries."""
        model = sentences.model
        states = model.states(sentences.batch)
        readout = readout_of(model, states, sentences.target, self.mode)
        found = {}
        for site, units in (("attention", attention_units(model, states)), ("ffn", ffn_units(model, states))):
            counts = self.counts(model.n_layers * units.coefficient.shape[2])
            found[site], best = _sums(readout, units, counts, sentences.room)
            if units.positional:
                neurons = best.div(units.coefficient.shape[3], rounding_mode="floor")
                found["attention_distinct"] = torch.stack(
                    [torch.tensor([len(set(row[:k])) for row in neurons.tolist()]) for k in counts], 1
                )
        return found

    def counts(self, n_units: int) -> list[int]:
        """Numbers of best neurons on a model of this size."""
        return [limited(k, self.largest_share, n_units) for k in self.top]

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """A forward and the distribution of every neuron, an attention neuron's at every token."""
        units = model.n_layers * (model.n_neurons + model.n_heads * model.head_dim * tokens)
        return forward + 2.0 * units * outputs_of(model) * model.hidden_size

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`increase_all`, `increase_positive`, `increase_top` (k neurons) by site; `distinct_neurons` of the latter."""
        model, found = prompts.model, []
        sizes = {"attention": model.n_heads * model.head_dim, "ffn": model.n_neurons}
        for site, width in sizes.items():
            for column, metric in ((0, "increase_all"), (1, "increase_positive")):
                found += means(metric, answers[site][:, column], prompts, reference_group=site)
            for column, k in enumerate(self.counts(model.n_layers * width)):
                found += means("increase_top", answers[site][:, 2 + column], prompts, k=k, reference_group=site)
                if site == "attention":
                    distinct = answers["attention_distinct"][:, column]
                    found += means("distinct_neurons", distinct, prompts, k=k, reference_group=site)
        return found


def _sums(readout: Readout, units: Units, counts: Sequence[int], memory_budget: int) -> tuple[Tensor, Tensor]:
    """Sums [batch, 2 + counts] and places of the best entries in [layers · units · positions], [batch, largest]."""
    every, positive = [], []
    scores: list[Tensor] = []
    places: list[Tensor] = []
    for layer, increase in series_increases(readout, units, memory_budget):
        flat = increase.flatten(1)
        every.append(flat.double().sum(1))
        positive.append(flat.double().clamp(min=0).sum(1))
        best = flat.topk(min(max(counts), flat.shape[1]), 1)
        scores.append(best.values)
        places.append(best.indices + layer * flat.shape[1])
    ordered, order = torch.cat(scores, 1).sort(dim=1, descending=True, stable=True)
    sums = [torch.stack(every).sum(0), torch.stack(positive).sum(0)]
    sums += [ordered[:, :k].double().sum(1) for k in counts]
    return torch.stack(sums, 1), torch.cat(places, 1).gather(1, order)[:, : max(counts)]
