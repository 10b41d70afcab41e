"""Heads by log-probability increase, and what is left of each type without another type's heads (Tables 10, 11)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.evaluation.neuron_level.sentences import (
    Prompts,
    Sentences,
    decreases,
    mean_row,
    places,
    require_counts,
)
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.interventions import head_mask
from twinlens.attribution.neuron.logprob_increase import head_increases
from twinlens.attribution.neuron.part_scores import HeadScore
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel


class HeadImportance:
    """The best heads of every type by mean increase (nats), and cross-knowledge interventions on them.

    Args:
        top: heads that are listed per type; the paper's ten.
        share: share of all heads that is zeroed for each type, one head at least; the paper's 1 %.
        mode: `corrected`: with the final norm's bias; `notebook`: without.

    Raises:
        UserError: fewer than one head, or no share.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.head_importance import HeadImportance
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = HeadImportance(top=2)
        >>> answers = test.answers(sentences)
        >>> answers |= test.second(sentences, test.chosen(answers, prompts))  # without the best head of each type
        >>> rows = test.evaluate(answers, prompts)
        >>> [(row.reference_group, round(row.value, 2)) for row in rows if row.metric == "head_increase"][:2]  # nats
        [('a1.0', 0.07), ('a1.1', -0.09)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(self, top: int = 10, share: float = 0.01, mode: Mode = "corrected") -> None:
        require_counts("head_importance", top=top, share=share)
        self.top = top
        self.share = share
        self.mode: Mode = mode

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """`increase` [batch, layers, heads] and the untouched model's metrics `original` [batch, 3]."""
        readout = sentences.readout(self.mode)
        increase = head_increases(sentences.model, sentences.states(), readout, sentences.room)
        return {"increase": increase, "original": sentences.metrics()}

    def text(self, answers: dict[str, Tensor], prompts: Prompts) -> str:
        """A line with the heads that are zeroed for each type, and which types have the very same ones, so that what is
        left without one type's heads is what is left without the other's."""
        names = {
            kind: ", ".join(f"a{layer}.{head}" for layer, head in heads.nonzero().tolist())
            for kind, heads in self.chosen(answers, prompts).items()
        }
        same = {heads: [kind for kind in names if names[kind] == heads] for heads in names.values()}
        shared = [f"{' and '.join(kinds)} zero the same" for kinds in same.values() if len(kinds) > 1]
        told = "; ".join([*(f"{kind} {heads}" for kind, heads in names.items()), *shared])
        return f"head_importance: zeroed heads: {told or 'none, the prompts have no types'}"

    def chosen(self, answers: dict[str, Tensor], prompts: Prompts) -> dict[str, Tensor]:
        """Heads zeroed for each type, bool [layers, heads], from the `answers` of all sentences."""
        found = {}
        for name, rows in prompts.by_type():
            mean = answers["increase"][rows].double().mean(0)
            n_zeroed = max(1, int(self.share * mean.numel()))
            mask = torch.zeros(mean.numel(), dtype=torch.bool)
            mask[_best(mean)[:n_zeroed]] = True
            found[name] = mask.view_as(mean)
        return found

    def second(self, sentences: Sentences, chosen: dict[str, Tensor]) -> dict[str, Tensor]:
        """Metrics [batch, 3] of all sentences without each type's heads, by type."""
        found, device = {}, sentences.target.device
        for name, heads in chosen.items():
            mask = head_mask(heads[None].to(device), sentences.model.head_dim)
            found[f"without|{name}"] = sentences.metrics(attention=mask.expand(len(sentences.target), -1, -1))
        return found

    def reads(self, model: ResidualModel) -> Reads:
        """The residual stream with attention, and the model as it is."""
        return Reads(states=True, attention=True, original=True)

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """Every head's distribution; of the second pass see `second_operations`."""
        return HeadScore().operations(model, tokens)

    def second_operations(self, forward: float, n_types: int) -> float:
        """A forward without the heads of every type."""
        return forward * n_types

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`head_place` and `head_increase` of the best heads, named a<layer>.<head> (Table 10); `mrr_decrease` and
        `prob_decrease` of a type's sentences (group) without the heads of another (reference_group) (Table 11)."""
        increase = answers["increase"]
        n_heads = increase.shape[2]
        names = [f"a{head // n_heads}.{head % n_heads}" for head in range(increase[0].numel())]
        found = places("head_place", increase.flatten(1), names, prompts, self.top)
        for row in list(found):
            rows = dict(prompts.groups())[row.group]
            values = increase.flatten(1)[rows, names.index(row.reference_group)]
            found.append(mean_row("head_increase", values, group=row.group, reference_group=row.reference_group))
        for key, after in answers.items():
            if key.startswith("without|"):
                zeroed = key.partition("|")[2]
                found += decreases(answers["original"], after, prompts, reference_group=zeroed)
        return found


def _best(values: Tensor) -> Tensor:
    """Numbers of the heads, best first, ties to the lower one."""
    return values.flatten().sort(descending=True, stable=True).indices
