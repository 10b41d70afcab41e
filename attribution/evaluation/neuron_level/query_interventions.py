"""Query FFN neurons: zeroed (second paper, Table 7), and where they lie beside value neurons (Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.controls import CONTROL
from twinlens.attribution.evaluation.neuron_level.reads import Longest, Reads
from twinlens.attribution.evaluation.neuron_level.sentences import (
    ORIGINAL,
    Prompts,
    Sentences,
    decreases,
    limited,
    mean_row,
    require_counts,
)
from twinlens.attribution.evaluation.neuron_level.value_neurons import ffn_values, query_scores
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.interventions import distinct_mask, random_mask
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel

METHOD = "query_neurons"


class QueryInterventions:
    """Fall of MRR and probability (per cent) without the best query neurons, and how many also are value neurons.

    Query neurons are those of the best attention value neurons. A query-value neuron stands among the first `k` of both
    lists, a query-only neuron in the query list alone.

    Args:
        k: query neurons that are zeroed, and length of both lists; the paper's 1000.
        attention: attention value neurons at a position that are asked; the paper's 200.
        largest_share: on small models at most this share of the neurons.
        shallow_share: query neurons come from this share of the layers, the first ones, as the paper's words for Table
            7 ("shallow neurons") can be read; None: from all.
        control_seeds: seeds of the random control, as many neurons in every layer.
        mode: `corrected` or `notebook`, see `twinlens.attribution.neuron.query`.

    Raises:
        UserError: a count of nothing, or a share beyond all layers.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.query_interventions import QueryInterventions
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = QueryInterventions(k=2, attention=2, largest_share=0.5, control_seeds=[0])
        >>> rows = test.evaluate(test.answers(sentences), prompts)
        >>> falls = [row for row in rows if row.metric == "prob_decrease" and row.group == ""]
        >>> [(row.method, round(row.value)) for row in falls]  # per cent of the probability
        [('query_neurons', 12), ('random_neurons', 12)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(
        self,
        k: int = 1000,
        attention: int = 200,
        largest_share: float = 0.05,
        control_seeds: Sequence[int] = (0, 1, 2),
        mode: Mode = "corrected",
        shallow_share: float | None = None,
    ) -> None:
        share = 1.0 if shallow_share is None else shallow_share
        require_counts(
            "query_interventions", k=k, attention=attention, largest_share=largest_share, shallow_share=share
        )
        if share > 1:
            raise UserError(
                f"evaluation.query_interventions.shallow_share={share} is more than all layers; expected at most 1: "
                "set e.g. evaluation.query_interventions.shallow_share=0.6, or null for all."
            )
        self.k = k
        self.attention = attention
        self.largest_share = largest_share
        self.control_seeds = list(control_seeds)
        self.mode: Mode = mode
        self.shallow_share = share

    @property
    def longest(self) -> int:
        """Most value neurons whose keys are read."""
        return self.attention

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """Metrics [batch, 3] of `original`, `query_neurons`, `random_neurons/seed<s>`; `query_only` and `query_value`,
        neurons by layer [batch, layers]."""
        model, index = sentences.model, sentences.batch["index"]
        k = self.count(model.n_layers * model.n_neurons)
        shallow = self.shallow_layers(model.n_layers)
        scores = query_scores(sentences, self.mode, self.n_asked(model)).clone()
        scores[:, shallow:] = -torch.inf
        queries = top_mask(scores, min(k, shallow * model.n_neurons))
        top = ffn_values(sentences, self.mode, k)
        values = distinct_mask(top.layer, top.unit, k, model.n_layers, model.n_neurons)
        answers = {ORIGINAL: sentences.metrics(), METHOD: sentences.metrics(ffn=queries)}
        for seed in self.control_seeds:
            answers[f"{CONTROL}/seed{seed}"] = sentences.metrics(ffn=random_mask(queries, seed, index))
        answers["query_only"] = (queries & ~values).sum(-1)
        answers["query_value"] = (queries & values).sum(-1)
        return answers

    def shallow_layers(self, n_layers: int) -> int:
        """Layers that query neurons come from, counted from the first, one at least."""
        return max(1, round(self.shallow_share * n_layers))

    def count(self, n_units: int) -> int:
        """Query neurons on a model with so many FFN neurons."""
        return limited(self.k, self.largest_share, n_units)

    def n_asked(self, model: ResidualModel) -> int:
        """Attention value neurons that are asked on a model of this size."""
        return limited(self.attention, self.largest_share, model.n_layers * model.n_heads * model.head_dim)

    def reads(self, model: ResidualModel) -> Reads:
        """Value neurons of both sites, query neurons, and the model as it is."""
        n_asked, mode = self.n_asked(model), self.mode
        values: Longest = {("ffn", mode): self.count(model.n_layers * model.n_neurons), ("attn", mode): n_asked}
        return Reads(True, True, values, frozenset({(n_asked, mode)}), original=True)

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """Forwards without the neurons and of every control."""
        return forward * (1 + len(self.control_seeds))

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`mrr_decrease`, `prob_decrease` by type; `query_only`, `query_value` by layer (group), mean neurons."""
        model = prompts.model
        k = min(self.count(model.n_layers * model.n_neurons), self.shallow_layers(model.n_layers) * model.n_neurons)
        variant = "" if self.shallow_share == 1 else f"shallow_share={self.shallow_share:g}"
        found = decreases(answers[ORIGINAL], answers[METHOD], prompts, method=METHOD, k=k, variant=variant)
        drawn = [answers[f"{CONTROL}/seed{seed}"] for seed in self.control_seeds]
        if drawn:
            mean = torch.stack(drawn).mean(0)
            found += decreases(answers[ORIGINAL], mean, prompts, method=CONTROL, k=k, variant=variant, control=True)
        for metric in ("query_only", "query_value"):
            for layer in range(model.n_layers):
                counts = answers[metric][:, layer]
                found.append(mean_row(metric, counts, k=k, group=str(layer), method=METHOD, variant=variant))
        return found


def top_mask(scores: Tensor, k: int) -> Tensor:
    """The `k` best of scores [batch, layers, units], ties to the lower layer and unit: bool, same shape."""
    flat = scores.flatten(1)
    best = flat.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, best, True).view_as(scores)
