"""Value and query neurons that a type's sentences share (second paper, Table 8), and what they stand for (Table 9)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.reads import Longest, Reads
from twinlens.attribution.evaluation.neuron_level.sentences import (
    ListedNeurons,
    Prompts,
    Sentences,
    limited,
    require_counts,
)
from twinlens.attribution.evaluation.neuron_level.value_neurons import (
    DISTINCT_IN,
    distinct_attention_values,
    ffn_list,
    ffn_values,
    joined,
    query_scores,
)
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel

ROLES = ("value", "query")


class SharedNeurons:
    """Neurons among the first `top` of more than `share` of a type's sentences, and their tokens.

    Value neurons are FFN and attention neurons (the latter at their best position) in one list by their increase, query
    neurons the FFN neurons that activate the best attention value neurons.

    Args:
        top: length of each sentence's lists; the paper's 300.
        share: of the sentences of a type; the paper's half.
        attention: attention value neurons at a position whose query neurons are taken; the paper's 200.
        largest_share: on small models at most this share of all neurons.
        shown: neurons per type and role whose tokens are given, those that most sentences share.
        tokens: tokens of each; the paper's ten.
        mode: `corrected` or `notebook`, see `twinlens.attribution.neuron.query`.

    Raises:
        UserError: a count of nothing.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.shared_neurons import SharedNeurons
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = SharedNeurons(top=3, attention=2, largest_share=0.5, shown=1, tokens=2)
        >>> rows = test.evaluate(test.answers(sentences), prompts)
        >>> found = [row for row in rows if row.metric == "vocabulary_token" and row.method == "value"]
        >>> [(row.group, row.reference_group) for row in found]  # type; neuron and a token that it raises
        [('capital', 'f0.2 1'), ('capital', 'f0.2 2'), ('colour', 'f0.3 4'), ('colour', 'f0.3 0')]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(
        self,
        top: int = 300,
        share: float = 0.5,
        attention: int = 200,
        largest_share: float = 0.05,
        shown: int = 3,
        tokens: int = 10,
        mode: Mode = "corrected",
    ) -> None:
        require_counts(
            "shared_neurons", top=top, share=share, attention=attention, largest_share=largest_share, tokens=tokens
        )
        self.top = top
        self.share = share
        self.attention = attention
        self.largest_share = largest_share
        self.shown = shown
        self.tokens = tokens
        self.mode: Mode = mode

    @property
    def longest(self) -> int:
        """Most value neurons whose keys are read."""
        return self.attention

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """Numbers of the first neurons of every sentence, `value` and `query`, int64 [batch, top of the role].

        A neuron's number is layer · (neurons + heads · head_dim) + unit, attention neurons behind the FFN's.
        """
        model = sentences.model
        units = model.n_heads * model.head_dim
        width = model.n_neurons + units
        n_value, n_query = self.counts(model.n_neurons, units, model.n_layers)
        ffn = ffn_values(sentences, self.mode, n_value)
        attention, scores = distinct_attention_values(sentences, self.mode, n_value)
        both = joined(ffn_list(ffn), attention)
        order = torch.cat([ffn.score, scores], 1).sort(dim=1, descending=True, stable=True).indices[:, :n_value]
        query = query_scores(sentences, self.mode, self.n_asked(model)).flatten(1)
        best = query.sort(dim=1, descending=True, stable=True).indices[:, :n_query]
        layer = best.div(model.n_neurons, rounding_mode="floor")
        return {
            "value": _numbers(both, model.n_neurons, width).gather(1, order),
            "query": layer * width + best % model.n_neurons,
        }

    def counts(self, n_neurons: int, n_units: int, n_layers: int) -> tuple[int, int]:
        """Lengths of the value and the query list on a model of this size."""
        value = limited(self.top, self.largest_share, n_layers * (n_neurons + n_units))
        value = min(value, n_layers * n_neurons, n_layers * n_units)
        return value, limited(self.top, self.largest_share, n_layers * n_neurons)

    def n_asked(self, model: ResidualModel) -> int:
        """Attention value neurons whose query neurons are taken on a model of this size."""
        return limited(self.attention, self.largest_share, model.n_layers * model.n_heads * model.head_dim)

    def reads(self, model: ResidualModel) -> Reads:
        """Value neurons of both sites, and query neurons."""
        value, _ = self.counts(model.n_neurons, model.n_heads * model.head_dim, model.n_layers)
        n_asked, mode = self.n_asked(model), self.mode
        values: Longest = {("ffn", mode): value, ("attn", mode): max(n_asked, DISTINCT_IN * value)}
        return Reads(True, True, values, frozenset({(n_asked, mode)}))

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """None worth the name: what it reads is sorted."""
        return 0.0

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`shared_neurons`: per cent of a list's length, by role (reference_group) and type, their mean over types
        without group; `vocabulary_token` of the neurons that most sentences share, see `neuron_tokens`."""
        found = []
        for role in ROLES:
            length = answers[role].shape[1]
            shares = []
            for name, rows in prompts.by_type():
                numbers, counts = answers[role][rows].unique(return_counts=True)
                shared = int((counts > self.share * len(rows)).sum())
                shares.append(100 * shared / length)
                found.append(
                    Result("shared_neurons", shares[-1], n=len(rows), k=length, group=name, reference_group=role)
                )
                order = counts.sort(descending=True, stable=True).indices[: self.shown]
                found += neuron_tokens(prompts, numbers[order].tolist(), self.tokens, name, role)
            if shares:
                mean = sum(shares) / len(shares)
                found.append(Result("shared_neurons", mean, n=len(prompts.types), k=length, reference_group=role))
        return found


def neuron_tokens(prompts: Prompts, numbers: list[int], n_tokens: int, group: str, role: str) -> list[Result]:
    """The outputs that neurons' value vectors raise most: one row per token.

    Returns:
        metric `vocabulary_token`: group: the type, method: the role, reference_group: `<neuron> <token>`, k: place,
        value: U·direction(v) of the token.
    """
    model, found = prompts.model, []
    width = model.n_neurons + model.n_heads * model.head_dim
    for number in numbers:
        layer, unit = divmod(number, width)
        name = neuron_name(model, layer, unit)
        attention = unit >= model.n_neurons
        value = model.attention_values(layer)[unit - model.n_neurons] if attention else model.values(layer)[unit]
        scores = _outputs(model, value)
        best = scores.topk(min(n_tokens, len(scores)))
        for place, (output, score) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
            text = f"{name} {prompts.token(output)}"
            found.append(Result("vocabulary_token", score, k=place + 1, group=group, method=role, reference_group=text))
    return found


def neuron_name(model: ResidualModel, layer: int, unit: int) -> str:
    """f<layer>.<unit> of an FFN neuron, of experts f<layer>.<expert>.<unit>, a<layer>.<head>.<dim> of an attention
    neuron: unit ≥ n_neurons."""
    if unit < model.n_neurons:
        if model.experts is None or layer not in model.experts.layers:
            return f"f{layer}.{unit}"
        expert, own = model.experts.of(torch.tensor(layer), torch.tensor(unit))
        return f"f{layer}.{int(expert)}.{int(own)}"
    head, dim = divmod(unit - model.n_neurons, model.head_dim)
    return f"a{layer}.{head}.{dim}"


def _outputs(model: ResidualModel, value: Tensor) -> Tensor:
    """U·direction(v) of one value vector, no bias, [outputs]."""
    direction = model.final_direction(value)
    if model.output_weight is None:
        return model.head(direction.to(value.dtype)).float()
    return model.output_weight.to(direction.dtype) @ direction


def _numbers(neurons: ListedNeurons, n_neurons: int, width: int) -> Tensor:
    return neurons.layer.long() * width + neurons.unit.long() + neurons.attention * n_neurons
