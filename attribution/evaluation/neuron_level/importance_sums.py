"""Sums of neurons' log-probability increases beside those of the best ones (second paper, Tables 5 and 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences, limited, means, require_counts
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.increase import Units, dense_bytes
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import outputs_of
from twinlens.attribution.neuron.readout import Mode, Readout
from twinlens.attribution.neuron.series_increases import TERMS, series_increases
from twinlens.attribution.residual_protocol import ResidualModel


@dataclass(frozen=True)
class ScoredSentences:
    """Any number of sentences, of which all neurons are scored.

    Attributes:
        readout: at their targets.
        ffn, attention: all neurons of either site.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.importance_sums import ImportanceSums
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, _ = example_sentences()
        >>> scored = ImportanceSums().scored(sentences)
        >>> scored.attention.coefficient.shape  # [batch, layers, heads · head_dim, tokens]
        torch.Size([2, 2, 4, 4])
        >>> scored.padded(6).joined([scored.padded(6)]).attention.coefficient.shape
        torch.Size([4, 2, 4, 6])
    """

    readout: Readout
    ffn: Units
    attention: Units

    def __len__(self) -> int:
        return len(self.readout)

    def padded(self, tokens: int) -> ScoredSentences:
        """The same with room for more tokens, at which attention neurons add nothing."""
        coefficient = self.attention.coefficient
        wider = pad(coefficient, (0, tokens - coefficient.shape[3]))
        return replace(self, attention=replace(self.attention, coefficient=wider))

    def joined(self, others: Sequence[ScoredSentences]) -> ScoredSentences:
        """These sentences, then the others', all of one number of tokens."""
        every = [self, *others]
        scale, target = (torch.cat([getattr(part.readout, name) for part in every]) for name in ("scale", "target"))
        readout = replace(self.readout, scale=scale, target=target)
        return ScoredSentences(readout, *(_joined([getattr(p, site) for p in every]) for site in ("ffn", "attention")))

    def to(self, device: torch.device) -> ScoredSentences:
        """The same on a device; the weights stay where they are."""
        readout = replace(self.readout, scale=self.readout.scale.to(device), target=self.readout.target.to(device))
        return ScoredSentences(readout, *(_moved(units, device) for units in (self.ffn, self.attention)))


def _joined(parts: Sequence[Units]) -> Units:
    base, coefficient = (torch.cat([getattr(part, name) for part in parts]) for name in ("base", "coefficient"))
    return replace(parts[0], base=base, coefficient=coefficient)


def _moved(units: Units, device: torch.device) -> Units:
    return replace(units, base=units.base.to(device), coefficient=units.coefficient.to(device))


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

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(self, top: Sequence[int] = (100, 200), largest_share: float = 0.05, mode: Mode = "corrected") -> None:
        self.top = sorted(set(top))
        require_counts("importance_sums", top=self.top[0] if self.top else 0, largest_share=largest_share)
        self.largest_share = largest_share
        self.mode: Mode = mode

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """`attention` and `ffn`: all, positive and each of `top`, [batch, 2 + counts]; `attention_distinct` [batch,
        counts]: neurons among these entries."""
        scored = self.scored(sentences)
        model, room = sentences.model, sentences.room
        parts = [self.of_part(model, scored, number, room) for number in range(self.n_parts(model))]
        stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        return self.total(stacked, model, scored.attention.coefficient.shape[3])

    # -- all sentences, one layer of one site after the other ----------------------------------------------------

    def n_parts(self, model: ResidualModel) -> int:
        """Parts of the neurons that are summed by themselves: the layers' FFN neurons, then their attention neurons."""
        return 2 * model.n_layers

    def scored(self, sentences: Sentences) -> ScoredSentences:
        """What the sums of all parts need of a batch."""
        states = sentences.states()
        ffn, attention = ffn_units(sentences.model, states), attention_units(sentences.model, states)
        return ScoredSentences(sentences.readout(self.mode), ffn, attention)

    def of_part(
        self, model: ResidualModel, scored: ScoredSentences, number: int, memory_budget: int
    ) -> dict[str, Tensor]:
        """Sums of one part, of any number of sentences; U·v and its powers are computed once for all of them.

        Returns:
            `every`, `positive` [batch]; the largest increases `score` and their places in [units · positions] `place`,
            [batch, the longest of `top`], −inf behind a part's last.
        """
        site, layer = divmod(number, model.n_layers)
        units = (scored.ffn, scored.attention)[site]
        at, values = slice(layer, layer + 1), units.values(layer)
        own = replace(units, base=units.base[:, at], coefficient=units.coefficient[:, at], values=lambda _: values)
        ((_, increase),) = series_increases(scored.readout, own, memory_budget)
        flat = increase.flatten(1)
        best = flat.topk(min(self._longest(model), flat.shape[1]), 1)
        missing = (0, self._longest(model) - best.values.shape[1])
        return {
            "every": flat.double().sum(1),
            "positive": flat.double().clamp(min=0).sum(1),
            "score": pad(best.values, missing, value=-torch.inf),
            "place": pad(best.indices, missing),
        }

    def total(self, parts: Mapping[str, Tensor], model: ResidualModel, n_positions: int) -> dict[str, Tensor]:
        """The answers, see `answers`.

        Args:
            parts: of `of_part`, [parts, batch, …].
            n_positions: of attention neurons in their places.
        """
        found = {}
        widths = {"ffn": model.n_neurons, "attention": model.n_heads * model.head_dim}
        for start, (site, width) in zip((0, model.n_layers), widths.items(), strict=True):
            own = {name: part[start : start + model.n_layers] for name, part in parts.items()}
            counts = self.counts(model.n_layers * width)
            ordered, order = own["score"].transpose(0, 1).flatten(1).sort(dim=1, descending=True, stable=True)
            sums = [own["every"].sum(0), own["positive"].sum(0)]
            sums += [ordered[:, :k].double().sum(1) for k in counts]
            found[site] = torch.stack(sums, 1)
            if site == "attention":
                layers = torch.arange(model.n_layers, device=ordered.device)[:, None, None]
                neurons = layers * width + own["place"].div(n_positions, rounding_mode="floor")
                best = neurons.transpose(0, 1).flatten(1).gather(1, order).tolist()
                found["attention_distinct"] = torch.tensor([[len(set(row[:k])) for k in counts] for row in best])
        return found

    def bytes_at_once(self, model: ResidualModel, tokens: int) -> int:
        """Memory that each of the sentences takes that `of_part` is given together."""
        units, hidden = model.n_heads * model.head_dim, model.hidden_size
        kept = 4 * model.n_layers * (2 * hidden + model.n_neurons + units * tokens)
        widest = max((model.n_neurons, 1), (units, tokens), key=lambda size: size[0] * size[1])
        return kept + dense_bytes(1, *widest, outputs_of(model), hidden) + 16 * widest[0] * widest[1]

    def _longest(self, model: ResidualModel) -> int:
        """Entries of a part's list."""
        return max(self.counts(model.n_layers * max(model.n_neurons, model.n_heads * model.head_dim)))

    def reads(self, model: ResidualModel) -> Reads:
        """The residual stream with attention."""
        return Reads(states=True, attention=True)

    def counts(self, n_units: int) -> list[int]:
        """Numbers of best neurons on a model of this size."""
        return [limited(k, self.largest_share, n_units) for k in self.top]

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """Every neuron's moments under the sentence's distributions."""
        points = 8.0 * model.n_layers * outputs_of(model) * model.hidden_size
        return points + 2.0 * (TERMS - 1) * _n_units(model) * outputs_of(model)

    def operations_together(self, model: ResidualModel) -> float:
        """The product of every neuron's value with the vocabulary, once for as many sentences as are given together."""
        return 2.0 * _n_units(model) * outputs_of(model) * model.hidden_size

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


def _n_units(model: ResidualModel) -> int:
    return model.n_layers * (model.n_neurons + model.n_heads * model.head_dim)
