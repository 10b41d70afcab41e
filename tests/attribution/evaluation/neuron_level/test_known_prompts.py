"""The filter of what a model knows, against the definition written out, and how many facts it knows."""

from __future__ import annotations

import math

import pytest
import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.neuron_level.known_facts import KnownFacts
from twinlens.attribution.evaluation.neuron_level.known_prompts import (
    best_other_logit,
    kept_prompts,
    other_answers,
    require_kept,
    target_rank,
)

TYPES = ["capital", "capital", "month", "capital", "month", "month"]
LABELS = torch.tensor([3, 5, 7, 3, 9, -1])
OWN = [[3], [5], [7, 11], [3], [9], []]
"""First tokens of the answers that each prompt accepts, the target among them."""


def by_definition(logits: torch.Tensor, top: int) -> list[str]:
    """The filter as the paper says it, one prompt at a time."""
    reasons = []
    for row, (kind, label) in enumerate(zip(TYPES, LABELS.tolist(), strict=True)):
        order = logits[row].argsort(descending=True).tolist()
        others = {token for name, own in zip(TYPES, OWN, strict=True) if name == kind for token in own}
        others -= {label, *OWN[row]}
        if label < 0:
            reasons.append("")
        elif order.index(label) >= top:
            reasons.append(f"rank {order.index(label) + 1} of the answer")
        elif any(order.index(other) < order.index(label) for other in others):
            reasons.append("below another answer of its type")
        else:
            reasons.append("")
    return reasons


@pytest.mark.parametrize("seed", range(20))
def test_the_filter_is_the_definition(seed: int) -> None:
    logits = torch.randn(len(TYPES), 12, generator=torch.Generator().manual_seed(seed))
    target = LABELS.clamp_min(0)
    kept = kept_prompts(
        target_rank(logits, target),
        logits.gather(-1, target[:, None])[:, 0],
        best_other_logit(logits, OWN, TYPES, other_answers(TYPES, OWN)),
        LABELS,
        TYPES,
        top=6,
    )
    assert list(kept.reason) == by_definition(logits, top=6)
    assert kept.kept.tolist() == [reason == "" for reason in kept.reason]


def test_other_answers_are_the_distinct_tokens_of_the_type() -> None:
    answers = other_answers(TYPES, OWN)
    assert {name: ids.tolist() for name, ids in answers.items()} == {"capital": [3, 5], "month": [7, 9, 11]}


def test_without_another_answer_only_the_rank_counts() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    for own in ([[0]], [[0, 2]]):  # two that one prompt accepts do not count against each other
        assert best_other_logit(logits, own, ["a"], other_answers(["a"], own)).tolist() == [-math.inf]


def test_the_report_counts_by_type_and_an_empty_rest_is_refused() -> None:
    rank, logit, other = torch.tensor([1, 23, 2]), torch.tensor([2.0, 0.0, 1.0]), torch.tensor([1.0, -1.0, 3.0])
    result = kept_prompts(rank, logit, other, torch.tensor([1, 2, 3]), ["a", "a", "b"])
    assert result.report() == {
        "a": {"kept": 1, "not in the top 10": 1},
        "b": {"kept": 0, "below another answer of its type": 1},
    }
    require_kept(result)
    with pytest.raises(UserError, match=r"knows none of the 1 prompts \(b: 1 below another answer of its type\)"):
        require_kept(kept_prompts(rank[2:], logit[2:], other[2:], torch.tensor([3]), ["b"]))


def test_known_facts_count_first_ranks_by_type() -> None:
    results = KnownFacts().evaluate(
        torch.tensor([1, 2, 1, 1]),
        torch.tensor([0.5, 0.25, 1.0, 1.0]),
        torch.tensor([4, 5, 6, -1]),
        list("abba"),
        "test",
    )
    found = {(each.metric, each.group): each.value for each in results}
    assert found["known", ""] == pytest.approx(2 / 3)
    assert found["mrr", "b"] == pytest.approx(0.75)
    assert found["perplexity", "a"] == pytest.approx(2.0)
    assert {each.n for each in results if each.group == "b"} == {2}
