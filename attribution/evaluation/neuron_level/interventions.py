"""Interventions on neurons (second paper, Table 2): zero every score's first k, see what is left of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.controls import CONTROL
from twinlens.attribution.evaluation.needs import Available, missing_methods
from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.evaluation.neuron_level.sentences import (
    ORIGINAL,
    Prompts,
    Sentences,
    listed_masks,
    means,
    require_counts,
)
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.interventions import random_mask
from twinlens.attribution.residual_protocol import ResidualModel

REFERENCE = "logprob_increase"
_ROWS: tuple[tuple[str, float], ...] = (("mrr", 1.0), ("prob", 100.0), ("logp", 1.0))


class Interventions:
    """MRR, probability (per cent) and log-probability (nats) of the target after zeroing neurons at every token.

    Rows: `original`, the model as it is; every neuron method of the run by its name; `random_neurons`, as many distinct
    neurons in every layer of every sentence as the list of `control_of` has there, the mean over seeds.

    Args:
        k: numbers of zeroed neurons, distinct ones; the paper's 10.
        control_seeds: seeds of the random control.
        control_of: method whose list the control matches; null: logprob_increase, or the run's first.

    Raises:
        UserError: a k below 1, or none.

    Example:
        >>> from dataclasses import replace
        >>> import torch
        >>> from twinlens.attribution.evaluation.neuron_level.interventions import Interventions
        >>> from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> one = torch.ones(2, 1, dtype=torch.int64)  # of both sentences neuron 3 of layer 1
        >>> best = ListedNeurons(attention=one == 0, layer=one, unit=3 * one)
        >>> test = Interventions(k=[1], control_seeds=[0])
        >>> answers = test.answers(replace(sentences, lists={"mine": best}))
        >>> rows = test.evaluate(answers, replace(prompts, seeds_of={"mine": ["mine"]}))
        >>> [(row.method, round(row.value)) for row in rows if row.metric == "prob" and row.group == ""]  # per cent
        [('original', 67), ('mine', 59), ('random_neurons', 61)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"
    reads_lists: ClassVar[bool] = True
    of_completions: ClassVar[bool] = True

    def __init__(
        self, k: Sequence[int] = (10,), control_seeds: Sequence[int] = (0, 1, 2), control_of: str | None = None
    ) -> None:
        self.k = sorted(set(k))
        self.control_seeds = list(control_seeds)
        self.control_of = control_of
        require_counts("interventions", k=self.k[0] if self.k else 0)

    @property
    def longest(self) -> int:
        """Largest k."""
        return self.k[-1]

    def require_length(self, name: str, top_k: int) -> None:
        """Refuse a method whose lists are shorter than the largest k.

        Raises:
            UserError: naming the method and both numbers.
        """
        if top_k < self.longest:
            raise UserError(
                f"evaluation.interventions zeroes the {self.longest} best neurons, but method.{name}.top_k={top_k} "
                f"keeps fewer; set method.{name}.top_k={self.longest} or a smaller evaluation.interventions.k."
            )

    def require_lists(self, methods: Mapping[str, Any]) -> None:
        """Refuse a control of a list that the run does not have.

        Raises:
            UserError: naming it.
        """
        of_neurons = {name: method for name, method in methods.items() if method.names_neurons}
        names = [name for name, method in of_neurons.items() if getattr(method, "role", "value") == "value"]
        if self.control_of is not None and self.control_of not in names:
            raise UserError(
                f"evaluation.interventions.control_of={self.control_of} is no neuron method of the run; expected one of"
                f" {', '.join(names)}: add method={self.control_of} or leave it empty."
            )

    def reference(self, names: Sequence[str]) -> str:
        """List that the control matches, one of the names."""
        return self.control_of or (REFERENCE if REFERENCE in names else names[0])

    def missing(self, available: Available) -> str:
        """A neuron method, where the run has none."""
        return missing_methods(available, "neuron")

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """Metrics [batch, 3] by key: `original`, `<list>|<k>` and `random_neurons/seed<s>|<k>`."""
        model, index = sentences.model, sentences.batch["index"]
        answers = {ORIGINAL: sentences.metrics()}
        own = any(neurons.control for neurons in sentences.lists.values())
        control = None if own or not self.control_seeds else self.reference(list(sentences.lists))
        for k in self.k:
            for name, neurons in sentences.lists.items():
                masks = listed_masks(model, neurons, k)
                answers[f"{name}|{k}"] = sentences.metrics(*masks)
                if name == control:
                    for seed in self.control_seeds:
                        drawn = [None if mask is None else random_mask(mask, seed, index) for mask in masks]
                        answers[f"{_control(seed)}|{k}"] = sentences.metrics(*drawn)
        return answers

    def reads(self, model: ResidualModel) -> Reads:
        """The model as it is."""
        return Reads(original=True)

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """A forward of every list and control at every k."""
        return forward * len(self.k) * (n_lists + len(self.control_seeds))

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """Rows by method, k and type of knowledge."""
        drawn = [_control(seed) for seed in self.control_seeds if f"{_control(seed)}|{self.longest}" in answers]
        own = CONTROL in prompts.seeds_of
        seeds_of = {**prompts.seeds_of, **({CONTROL: drawn} if drawn and not own else {})}
        found = self._rows(answers[ORIGINAL], prompts, ORIGINAL, None)
        for method, names in seeds_of.items():
            for k in self.k:
                mean = torch.stack([answers[f"{name}|{k}"] for name in names]).mean(0)
                found += self._rows(mean, prompts, method, k, control=method == CONTROL)
        return found

    def _rows(
        self, values: Tensor, prompts: Prompts, method: str, k: int | None, control: bool = False
    ) -> list[Result]:
        cells = {"method": method, "k": k, "better": "" if method == ORIGINAL else "lower", "control": control}
        return [
            row
            for column, (metric, unit) in enumerate(_ROWS)
            for row in means(metric, values[:, column], prompts, unit, **cells)
        ]


def _control(seed: int) -> str:
    return f"{CONTROL}/seed{seed}"
