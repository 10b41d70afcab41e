"""Number of facts that a language model knows: the rank of the answers among its next tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import wilson


@dataclass(frozen=True)
class KnownFacts:
    """Share of answers ranked first, mean reciprocal rank, and perplexity of the answer's first token; by type too.

    `known` and `mrr` are fractions (higher is better); perplexity is exp of the mean −log p (lower is better). The 95 %
    interval of `known` is Wilson's, the others are a bootstrap's over prompts.

    Attributes:
        requires: prompts whose answers are known.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.neuron_level.known_facts import KnownFacts
        >>> rank, prob, label = torch.tensor([1, 4]), torch.tensor([0.5, 0.125]), torch.tensor([17, 23])
        >>> rows = KnownFacts().evaluate(rank, prob, label, ["capital", "capital"], split="test")
        >>> [(row.metric, round(row.value, 3)) for row in rows if row.group == ""]
        [('known', 0.5), ('mrr', 0.625), ('perplexity', 4.0)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: Literal["answers"] = "answers"

    def evaluate(self, rank: Tensor, prob: Tensor, label: Tensor, types: Sequence[str], split: str) -> list[Result]:
        """Results over all prompts with an answer, and over those of each type (`group`).

        Args:
            rank: rank of the answer's first token, from 1 on, [prompts].
            prob: its probability, [prompts].
            label: its id, −1 where there is no answer, [prompts].
            types: knowledge type, [prompts].
            split: name of the split.
        """
        asked = [number for number, token in enumerate(label.tolist()) if token >= 0]
        groups = {"": asked}
        for name in sorted({types[number] for number in asked}):
            groups[name] = [number for number in asked if types[number] == name]
        return [
            result for name, rows in groups.items() if rows for result in _of_group(rank[rows], prob[rows], name, split)
        ]


def _of_group(rank: Tensor, prob: Tensor, group: str, split: str) -> list[Result]:
    n = len(rank)
    known = float((rank == 1).double().mean())
    low, high = wilson(known, n)
    reciprocal, surprise = rank.double().reciprocal(), -prob.double().clamp_min(1e-30).log()
    perplexity = math.exp(float(surprise.mean()))
    mrr = ends(reciprocal[None], lambda means: means[:, 0])
    lost = ends(surprise[None], lambda means: means[:, 0].exp())
    return [
        Result(
            "known", known, (known * (1 - known) / n) ** 0.5, n, group=group, split=split, better="higher", low=low,
            high=high, samples=(rank == 1).double(),
        ),
        Result(
            "mrr", float(reciprocal.mean()), None, n, group=group, split=split, better="higher", low=mrr[0],
            high=mrr[1], samples=reciprocal,
        ),
        Result(
            "perplexity", perplexity, None, n, group=group, split=split, better="lower", low=lost[0], high=lost[1]
        ),
    ]  # fmt: skip
