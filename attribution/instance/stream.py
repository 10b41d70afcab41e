"""Scores of many tests against many train examples in blocks, keeping the best, the worst and a train summary.

Nothing of size tests × train exists beyond one block. Rankings do not depend on the blocking: scores are rounded to
float32 before they are ranked, so that float64 rounding errors, which do depend on it, cannot reorder equal examples,
and ties go to the lower train row.

A scorer that declares `ranks` may give −∞: no influence at all. Lists keep their fixed length and their train rows, so
that −∞ entries stand at the end of the best list and at the head of the worst; they are no votes. As a mean over tests
says nothing then, each train example also gets its mean rank, for which whole rows of scores are kept and sorted.

A scorer of inner products is streamed by `twinlens.attribution.instance.bounded`, which leaves out what cannot count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.instance.block_sizes import block_sizes
from twinlens.attribution.instance.bounded import InnerProductScorer, bounded_scores
from twinlens.attribution.instance.leaders import Leaders
from twinlens.attribution.instance.protocol import Inputs, InstanceScorer, InstanceScores
from twinlens.attribution.instance.ranks import RankSums, ranks_whole_rows
from twinlens.attribution.instance.train_summary import TrainSummary, count_votes


def stream_scores(
    scorer: InstanceScorer, test: Inputs, test_index: Tensor, top_k: int, memory_budget: int
) -> tuple[InstanceScores, TrainSummary]:
    """Score all tests against all train examples.

    Args:
        scorer: prepared on the train split.
        test: the tests, in any order; may be empty.
        test_index: their rows in the split, [tests].
        top_k: length of the lists; they are n_train long where there are fewer train examples.
        memory_budget: bytes of working memory, what the scorer holds among them.

    Returns:
        The lists, on the CPU, in the order of `test`; and the summary.

    Raises:
        UserError: if a score is NaN or infinite, with the tests' indices; −∞ is allowed to a scorer with `ranks`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> from twinlens.attribution.instance.stream import stream_scores
        >>> train, test = example_head_inputs()
        >>> scorer = GradientSimilarity().prepare(train, BUDGET)
        >>> lists, summary = stream_scores(scorer, test, torch.arange(2), top_k=2, memory_budget=BUDGET)
        >>> lists.top_index  # the two train rows that help each test most
        tensor([[0, 3],
                [2, 3]])
        >>> summary.finalize()["mean"].round(decimals=3)  # per train row, over both tests
        tensor([ 0.0640, -0.4740,  0.0640,  0.0640], dtype=torch.float64)
    """
    n_tests, n_train = len(test), scorer.n_train
    test_rows, train_rows = block_sizes(scorer, n_tests, memory_budget)
    lists = []
    summary = TrainSummary.empty(n_train)
    for start in range(0, n_tests, test_rows):
        stop = min(start + test_rows, n_tests)
        index = test_index[start:stop].cpu()
        query = scorer.query(test.rows(start, stop), index)
        if isinstance(scorer, InnerProductScorer):
            scores, part = bounded_scores(scorer, query, index, top_k, train_rows)
        else:
            ranking = max(0, memory_budget - scorer.bytes_held) // 2
            scores, part = _all_scores(scorer, query, index, top_k, train_rows, ranking)
        summary = summary.merge(part)
        lists.append(scores)
        del query
    return concatenate(lists, min(top_k, n_train)), summary


def _all_scores(
    scorer: InstanceScorer, query: Any, index: Tensor, top_k: int, train_rows: int, ranking: int
) -> tuple[InstanceScores, TrainSummary]:
    """Score a block of tests against all train examples; `ranking` in bytes bounds what mean ranks take."""
    best, worst = Leaders(top_k, largest=True), Leaders(top_k, largest=False)
    sums, maxima = [], []
    ranks = RankSums() if ranks_whole_rows(scorer) else None
    for first in range(0, scorer.n_train, train_rows):
        last = min(first + train_rows, scorer.n_train)
        block = scorer.scores(query, first, last)
        require_finite(block if ranks is None else without_minus_infinity(block), "An instance score", index)
        ranked = block.to(torch.float32)
        if ranks is not None:
            ranks.update(ranked)
        sums.append(block.sum(0, dtype=torch.float64).cpu())
        maxima.append(ranked.amax(0).double().cpu())
        rows = torch.arange(first, last, device=ranked.device)
        best.update(ranked, rows)
        worst.update(ranked, rows)
        del block, ranked  # else they would stand beside the next block's
    scores = InstanceScores(index, *best.result(), *worst.result())
    part = TrainSummary(torch.cat(sums), torch.cat(maxima), count_votes(scores, scorer.n_train), len(index))
    return scores, part if ranks is None else replace(part, rank_sum=ranks.result(ranking))


def without_minus_infinity(scores: Tensor) -> Tensor:
    """The scores, [...], with 0 in place of −∞."""
    return scores.masked_fill(scores == -math.inf, 0)


def concatenate(parts: Iterable[InstanceScores], k: int) -> InstanceScores:
    """One result from those of several shards of tests; `k` is the length of the lists where there is no shard."""
    parts = list(parts)
    if not parts:
        no_index, no_score = torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)
        return InstanceScores(torch.empty(0, dtype=torch.int64), no_index, no_score, no_index, no_score)
    fields = ("index", "top_index", "top_score", "bottom_index", "bottom_score")
    return InstanceScores(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))
