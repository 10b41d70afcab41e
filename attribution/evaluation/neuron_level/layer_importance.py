"""Layers by log-probability increase (second paper, Tables 3 and 4)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences, means, places
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.logprob_increase import layer_increases
from twinlens.attribution.neuron.part_scores import LayerScore
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel


class LayerImportance:
    """Increase of every attention and MLP output, biases included, and their sums over layers; nats.

    Args:
        mode: `corrected`: with the final norm's bias; `notebook`: without, as the authors' notebooks.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.layer_importance import LayerImportance
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = LayerImportance()
        >>> rows = test.evaluate(test.answers(sentences), prompts)
        >>> sums = [row for row in rows if row.metric == "layer_sum" and row.group == ""]
        >>> [(row.reference_group, round(row.value, 2)) for row in sums]  # nats, mean over sentences
        [('attention', -0.95), ('ffn', 1.15)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(self, mode: Mode = "corrected") -> None:
        self.mode: Mode = mode

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """`attention` and `ffn`, [batch, layers] each."""
        readout = sentences.readout(self.mode, attention=False)
        attention, ffn = layer_increases(sentences.states(attention=False), readout, sentences.room)
        return {"attention": attention, "ffn": ffn}

    def reads(self, model: ResidualModel) -> Reads:
        """The residual stream."""
        return Reads(states=True)

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """Every layer's distributions."""
        return LayerScore().operations(model, tokens)

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`layer_sum` by site (Table 3); `layer_increase` of every layer a0, …, f0, …, `layer_place` of the best ten
        (Table 4)."""
        both = torch.cat([answers["attention"], answers["ffn"]], 1)
        names = [f"{letter}{layer}" for letter in "af" for layer in range(answers["ffn"].shape[1])]
        found = places("layer_place", both, names, prompts)
        for site, letter in (("attention", "a"), ("ffn", "f")):
            found += means("layer_sum", answers[site].sum(1), prompts, reference_group=site)
            for layer in range(answers[site].shape[1]):
                name = f"{letter}{layer}"
                found += means("layer_increase", answers[site][:, layer], prompts, reference_group=name)
        return found
