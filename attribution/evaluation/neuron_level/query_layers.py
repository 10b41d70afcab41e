"""Layers whose outputs activate the best value neurons (second paper, Tables 6 and 14)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.reads import Longest, Reads
from twinlens.attribution.evaluation.neuron_level.sentences import (
    Prompts,
    Sentences,
    limited,
    means,
    places,
    require_counts,
)
from twinlens.attribution.evaluation.neuron_level.value_neurons import attention_values, ffn_values
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron import query
from twinlens.attribution.neuron.query import ValueNeurons
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel


class QueryLayers:
    """Increase of the best value neurons, shared out among the layers that their keys read; nats.

    Args:
        ffn: FFN value neurons that are asked; the paper's 100.
        attention: attention value neurons at a position that are asked; the paper's 200.
        largest_share: on small models at most this share of a site's neurons.
        mode: `corrected` or `notebook`, see `twinlens.attribution.neuron.query`.

    Raises:
        UserError: a count of nothing.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.query_layers import QueryLayers
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = QueryLayers(ffn=3, attention=3, largest_share=0.5)
        >>> rows = test.evaluate(test.answers(sentences), prompts)
        >>> shares = [row for row in rows if row.metric == "ffn_query" and row.group == ""]
        >>> [(row.reference_group, round(row.value, 2)) for row in shares]  # nats, mean over sentences
        [('embedding', 0.97), ('a0', 0.13), ('a1', -0.1), ('f0', -0.14), ('f1', 0.0), ('constant', 0.0)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(
        self, ffn: int = 100, attention: int = 200, largest_share: float = 0.05, mode: Mode = "corrected"
    ) -> None:
        require_counts("query_layers", ffn=ffn, attention=attention, largest_share=largest_share)
        self.ffn = ffn
        self.attention = attention
        self.largest_share = largest_share
        self.mode: Mode = mode

    @property
    def longest(self) -> int:
        """Most value neurons of a sentence."""
        return max(self.ffn, self.attention)

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """Per site of the value neurons: shares of embedding, attention and MLP by layer, constant,
        [batch, 2 · layers + 2]."""
        n_attention, n_ffn = self.counts(sentences.model)
        found = {}
        for site, top in (
            ("ffn", ffn_values(sentences, self.mode, n_ffn)),
            ("attention", attention_values(sentences, self.mode, n_attention)),
        ):
            neurons = ValueNeurons.of(top, sentences.states())
            shares = query.query_layers(sentences.model, sentences.batch, neurons, sentences.room, self.mode)
            parts = (shares.embedding[:, None], shares.attention, shares.mlp, shares.constant[:, None])
            found[site] = torch.cat(parts, 1)
        return found

    def counts(self, model: ResidualModel) -> tuple[int, int]:
        """Attention and FFN value neurons that are asked on a model of this size."""
        attention = limited(self.attention, self.largest_share, model.n_layers * model.n_heads * model.head_dim)
        return attention, limited(self.ffn, self.largest_share, model.n_layers * model.n_neurons)

    def reads(self, model: ResidualModel) -> Reads:
        """Value neurons of both sites."""
        attention, ffn = self.counts(model)
        values: Longest = {("ffn", self.mode): ffn, ("attn", self.mode): attention}
        return Reads(states=True, attention=True, values=values)

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """Of either site a forward and its keys' products with every layer."""
        products = 8.0 * sum(self.counts(model)) * model.n_layers * model.hidden_size
        return 2 * forward + products

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`ffn_query` and `attention_query` of every layer: embedding, a0, …, f0, …, constant (reference_group);
        `ffn_query_place` and `attention_query_place` of the best ten layers (Tables 6 and 14)."""
        n_layers, found = prompts.model.n_layers, []
        names = ["embedding", *(f"{letter}{layer}" for letter in "af" for layer in range(n_layers)), "constant"]
        for site, shares in answers.items():
            found += places(f"{site}_query_place", shares[:, 1:-1], names[1:-1], prompts)
            for column, name in enumerate(names):
                found += means(f"{site}_query", shares[:, column], prompts, reference_group=name)
        return found
