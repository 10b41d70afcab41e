"""Zeroing the best value neurons of both sites at once (second paper, Table 13), with a random control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.evaluation.controls import CONTROL
from twinlens.attribution.evaluation.neuron_level.reads import Longest, Reads
from twinlens.attribution.evaluation.neuron_level.sentences import (
    ORIGINAL,
    Prompts,
    Sentences,
    decreases,
    limited,
    listed_masks,
    require_counts,
)
from twinlens.attribution.evaluation.neuron_level.value_neurons import (
    DISTINCT_IN,
    SCORE,
    distinct_attention_values,
    ffn_list,
    ffn_values,
)
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.interventions import random_mask
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel


class ValueInterventions:
    """Fall of MRR and probability (per cent) without the best attention and FFN value neurons of each sentence.

    The random control has as many distinct neurons of each site in every layer; the mean over seeds.

    Args:
        attention, ffn: distinct neurons that are zeroed; the paper's 200 and 100.
        largest_share: on small models at most this share of a site's neurons.
        control_seeds: seeds of the random control.
        mode: `corrected`: with the final norm's bias; `notebook`: without.

    Raises:
        UserError: a count of nothing.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.value_interventions import ValueInterventions
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = ValueInterventions(attention=2, ffn=2, largest_share=0.5, control_seeds=[0])
        >>> rows = test.evaluate(test.answers(sentences), prompts)
        >>> falls = [row for row in rows if row.metric == "prob_decrease" and row.group == ""]
        >>> [(row.method, round(row.value)) for row in falls]  # per cent of the probability
        [('logprob_increase', 79), ('random_neurons', 44)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(
        self,
        attention: int = 200,
        ffn: int = 100,
        largest_share: float = 0.05,
        control_seeds: Sequence[int] = (0, 1, 2),
        mode: Mode = "corrected",
    ) -> None:
        require_counts("value_interventions", attention=attention, ffn=ffn, largest_share=largest_share)
        self.attention = attention
        self.ffn = ffn
        self.largest_share = largest_share
        self.control_seeds = list(control_seeds)
        self.mode: Mode = mode

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """Metrics [batch, 3]: `original`, `logprob_increase`, `random_neurons/seed<s>`."""
        model, index = sentences.model, sentences.batch["index"]
        n_attention, n_ffn = self.counts(model)
        attention, _ = distinct_attention_values(sentences, self.mode, n_attention)
        ffn = ffn_list(ffn_values(sentences, self.mode, n_ffn))
        masks = listed_masks(model, ffn, n_ffn)[0], listed_masks(model, attention, n_attention)[1]
        answers = {ORIGINAL: sentences.metrics(), SCORE: sentences.metrics(*masks)}
        for seed in self.control_seeds:
            drawn = [None if mask is None else random_mask(mask, seed, index) for mask in masks]
            answers[f"{CONTROL}/seed{seed}"] = sentences.metrics(*drawn)
        return answers

    def counts(self, model: ResidualModel) -> tuple[int, int]:
        """Attention and FFN neurons zeroed on a model of this size."""
        attention = limited(self.attention, self.largest_share, model.n_layers * model.n_heads * model.head_dim)
        return attention, limited(self.ffn, self.largest_share, model.n_layers * model.n_neurons)

    def reads(self, model: ResidualModel) -> Reads:
        """Value neurons of both sites, and the model as it is."""
        attention, ffn = self.counts(model)
        values: Longest = {("ffn", self.mode): ffn, ("attn", self.mode): DISTINCT_IN * attention}
        return Reads(states=True, attention=True, values=values, original=True)

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """Forwards without the neurons and of every control."""
        return forward * (1 + len(self.control_seeds))

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`mrr_decrease` and `prob_decrease`; k counts the neurons of both sites."""
        k = sum(self.counts(prompts.model))
        found = decreases(answers[ORIGINAL], answers[SCORE], prompts, method=SCORE, k=k)
        drawn = [answers[f"{CONTROL}/seed{seed}"] for seed in self.control_seeds]
        if drawn:
            mean = torch.stack(drawn).mean(0)
            found += decreases(answers[ORIGINAL], mean, prompts, method=CONTROL, k=k, control=True)
        return found
