"""Filter of the prompts that a model knows (Yu & Ananiadou 2024, section 4). Only these are explained.

A prompt is kept where the answer's first token ranks in the model's top 10 and above every other answer of its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError

TOP = 10
"""Ranks that count as known, as in the paper."""


@dataclass(frozen=True)
class Kept:
    """Decision of the filter.

    Attributes:
        kept: which prompts are kept, bool [prompts].
        reason: why a prompt was dropped, empty for the kept ones, [prompts].
        types: knowledge type, [prompts].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.neuron_level.known_prompts import kept_prompts
        >>> logit, best_other = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 0.0])
        >>> result = kept_prompts(torch.tensor([1, 3, 40]), logit, best_other, torch.tensor([5, 6, 7]), ["capital"] * 3)
        >>> result.kept
        tensor([ True, False, False])
        >>> result.report()
        {'capital': {'kept': 1, 'below another answer of its type': 1, 'not in the top 10': 1}}
    """

    kept: Tensor
    reason: tuple[str, ...]
    types: tuple[str, ...]

    def report(self) -> dict[str, dict[str, int]]:
        """type → {"kept": number, reason: number of prompts dropped for it, …}; ranks are counted as one reason."""
        counts: dict[str, dict[str, int]] = {}
        for name, reason in zip(self.types, self.reason, strict=True):
            of_type = counts.setdefault(name, {"kept": 0})
            key = f"not in the top {TOP}" if reason.startswith("rank ") else reason or "kept"
            of_type[key] = of_type.get(key, 0) + 1
        return counts


def other_answers(types: Sequence[str], own: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """All answer tokens of each type.

    The other answers of a prompt are those of its type without its own tokens, so that two answers with the same first
    token never count against each other, nor two that a prompt accepts.

    Args:
        types: knowledge type, [prompts].
        own: ids of the first tokens of the answers that each prompt accepts, [prompts].

    Returns:
        type → distinct token ids in ascending order, [answers of the type].
    """
    found: dict[str, set[int]] = {name: set() for name in types}
    for name, tokens in zip(types, own, strict=True):
        found[name].update(tokens)
    return {name: torch.tensor(sorted(tokens), dtype=torch.int64) for name, tokens in found.items()}


def best_other_logit(
    logits: Tensor, own: Sequence[Sequence[int]], types: Sequence[str], answers: dict[str, Tensor]
) -> Tensor:
    """Highest logit among the other answers of each prompt's type, −inf where there is none, [prompts].

    Args:
        logits: of the next token, [prompts, vocabulary].
        own: ids of the first tokens of the answers that each prompt accepts, [prompts].
        types: knowledge type, [prompts].
        answers: result of `other_answers` over the whole split, of which these prompts may be a part.
    """
    best = logits.new_full((len(logits),), -torch.inf)
    for row, name in enumerate(types):
        ids = answers[name].to(logits.device)
        others = ids[~torch.isin(ids, torch.tensor(own[row], dtype=torch.int64, device=ids.device))]
        if len(others):
            best[row] = logits[row, others].max()
    return best


def target_rank(logits: Tensor, target: Tensor) -> Tensor:
    """1 + number of tokens with a higher logit than the target, int64 [prompts].

    Args:
        logits: [prompts, vocabulary].
        target: token ids, [prompts].
    """
    return 1 + (logits > logits.gather(-1, target[:, None])).sum(-1)


def kept_prompts(
    rank: Tensor, logit: Tensor, best_other: Tensor, labels: Tensor, types: Sequence[str], top: int = TOP
) -> Kept:
    """Decide which prompts are kept, and say why the others are not.

    Args:
        rank: rank of the answer's first token, from 1 on, [prompts].
        logit: its logit, [prompts].
        best_other: highest logit of another answer of its type, [prompts].
        labels: id of the answer's first token; prompts without an answer (−1) are kept, [prompts].
        types: knowledge type, [prompts].
        top: highest rank that counts as known.
    """
    asks = labels >= 0
    unknown, below = asks & (rank > top), asks & (logit <= best_other)
    reason = tuple(
        f"rank {number} of the answer" if is_unknown else "below another answer of its type" if is_below else ""
        for number, is_unknown, is_below in zip(rank.tolist(), unknown.tolist(), below.tolist(), strict=True)
    )
    return Kept(~(unknown | below), reason, tuple(types))


def require_kept(result: Kept) -> None:
    """Refuse a run that would have nothing left.

    Raises:
        UserError: no prompt is kept, with the report.
    """
    if not bool(result.kept.any()):
        found = "; ".join(
            f"{name}: {', '.join(f'{count} {reason}' for reason, count in counts.items() if reason != 'kept')}"
            for name, counts in result.report().items()
        )
        raise UserError(
            f"the model knows none of the {len(result.reason)} prompts ({found}); expected at least one whose answer "
            f"ranks in its top {TOP}: use prompts that the model can answer."
        )
