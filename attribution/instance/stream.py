"""Scores of many tests against many train examples in blocks, keeping the best, the worst and a train summary.

Nothing of size tests × train exists beyond one block. Rankings do not depend on the blocking: scores are rounded to
float32 before they are ranked, so that float64 rounding errors, which do depend on it, cannot reorder equal examples,
and ties go to the lower train row.

A scorer that declares `ranks` may give −∞: no influence at all. Lists keep their fixed length and their train rows, so
that −∞ entries stand at the end of the best list and at the head of the worst; they are no votes. As a mean over tests
says nothing then, each train example also gets its mean rank, for which whole rows of scores are kept and sorted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attribution.base import require_finite
from attribution.instance.protocol import Inputs, InstanceScorer, InstanceScores, ScorerSize
from attribution.instance.ranks import BYTES_PER_KEPT, RankSums, ranks_whole_rows

VOTES_TOP = 10
"""Length of the lists in which an instance's appearances are counted as votes."""

BYTES_PER_PAIR = 48
"""Working memory per score while it is ranked: float64 and float32 forms, sort keys and their selection."""

BYTES_PER_PRODUCT = 16
"""Working memory per score while it is computed, beside the gradients: a float64 product and its second factor."""

_PAIRS_PER_BLOCK = 2**20
"""Scores per block at most: larger blocks fall out of the caches and are slower, whatever memory there is."""

_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1


@dataclass(frozen=True)
class TrainSummary:
    """What all tests together say of each train example; shards of tests are reduced with `merge`.

    Attributes:
        sum: sum of scores over tests, [n_train], float64.
        max: highest score over tests, [n_train], float64; −∞ before any test.
        votes: number of tests that have the example in their top 10, [n_train], int64; −∞ is no vote.
        n_test: number of tests.
        rank_sum: sum over tests of the example's rank among all train examples, 1 = best, equal scores sharing the
            mean of their ranks, [n_train], float64. A single NaN where the scorer does not declare `ranks`.
    """

    sum: Tensor
    max: Tensor
    votes: Tensor
    n_test: int
    rank_sum: Tensor = field(default_factory=lambda: torch.tensor(math.nan, dtype=torch.float64))

    @staticmethod
    def empty(n_train: int) -> TrainSummary:
        """The summary of no tests."""
        return TrainSummary(
            torch.zeros(n_train, dtype=torch.float64),
            torch.full((n_train,), -math.inf, dtype=torch.float64),
            torch.zeros(n_train, dtype=torch.int64),
            0,
            torch.zeros((), dtype=torch.float64),  # neutral for both, sums of ranks and the NaN that stands for none
        )

    def merge(self, other: TrainSummary) -> TrainSummary:
        """The summary of both sets of tests."""
        return TrainSummary(
            self.sum + other.sum,
            torch.maximum(self.max, other.max),
            self.votes + other.votes,
            self.n_test + other.n_test,
            self.rank_sum + other.rank_sum,
        )

    def finalize(self, self_influence: Tensor | None = None) -> dict[str, Tensor]:
        """Columns of the stored summary, one row per train example.

        Args:
            self_influence: [n_train] of the scorer, or None where the method has none.

        Returns:
            `index`, `mean` (NaN where a score was −∞), `max`, `votes` and `self_influence` (NaN where there is none);
            with ranks also `mean_rank`, the lower the better, by which to order the train split. Each [n_train].
        """
        if self.n_test == 0:
            raise ValueError("A train summary needs at least one test.")
        n_train = len(self.sum)
        own = torch.full((n_train,), math.nan, dtype=torch.float64) if self_influence is None else self_influence.cpu()
        columns = {
            "index": torch.arange(n_train),
            "mean": torch.where(self.sum > -math.inf, self.sum / self.n_test, math.nan),
            "max": self.max,
            "votes": self.votes,
            "self_influence": own,
        }
        if not bool(self.rank_sum.isnan().any()):
            columns["mean_rank"] = self.rank_sum / self.n_test
        return columns


def stream_scores(
    scorer: InstanceScorer,
    test: Inputs,
    test_index: Tensor,
    top_k: int,
    memory_budget: int,
    advance: Callable[[int], None] | None = None,
) -> tuple[InstanceScores, TrainSummary]:
    """Score all tests against all train examples.

    Args:
        scorer: prepared on the train split.
        test: the tests, in any order; may be empty.
        test_index: their rows in the split, [tests].
        top_k: length of the lists; they are n_train long where there are fewer train examples.
        memory_budget: bytes of working memory, what the scorer holds among them.
        advance: called after each block with the number of (test, train) pairs done, for a progress bar.

    Returns:
        The lists, on the CPU, in the order of `test`; and the summary.

    Raises:
        UserError: if a score is NaN or infinite, with the tests' indices; −∞ is allowed to a scorer with `ranks`.
    """
    n_tests, n_train = len(test), scorer.n_train
    test_rows, train_rows = block_sizes(scorer, n_tests, memory_budget)
    lists = []
    summary = TrainSummary.empty(n_train)
    for start in range(0, n_tests, test_rows):
        stop = min(start + test_rows, n_tests)
        index = test_index[start:stop].cpu()
        query = scorer.query(test.rows(start, stop), index)
        best, worst = Leaders(top_k, largest=True), Leaders(top_k, largest=False)
        sums, maxima = [], []
        ranks = RankSums() if ranks_whole_rows(scorer) else None
        for first in range(0, n_train, train_rows):
            last = min(first + train_rows, n_train)
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
            if advance is not None:
                advance((stop - start) * (last - first))
        scores = InstanceScores(index, *best.result(), *worst.result())
        part = TrainSummary(torch.cat(sums), torch.cat(maxima), count_votes(scores, n_train), stop - start)
        if ranks is not None:
            part = replace(part, rank_sum=ranks.result(max(0, memory_budget - scorer.bytes_held) // 2))
        summary = summary.merge(part)
        lists.append(scores)
        del query
    return concatenate(lists, min(top_k, n_train)), summary


def without_minus_infinity(scores: Tensor) -> Tensor:
    """The scores with 0 in place of −∞."""
    return scores.masked_fill(scores == -math.inf, 0)


def count_votes(scores: InstanceScores, n_train: int) -> Tensor:
    """How many of the tests have each train example in their top 10, with a score above −∞, [n_train], int64."""
    index, score = scores.top_index[:, :VOTES_TOP], scores.top_score[:, :VOTES_TOP]
    return torch.bincount(index[score > -math.inf], minlength=n_train)


def concatenate(parts: Iterable[InstanceScores], k: int) -> InstanceScores:
    """One result from those of several shards of tests; `k` is the length of the lists where there is no shard."""
    parts = list(parts)
    if not parts:
        no_index, no_score = torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)
        return InstanceScores(torch.empty(0, dtype=torch.int64), no_index, no_score, no_index, no_score)
    fields = ("index", "top_index", "top_score", "bottom_index", "bottom_score")
    return InstanceScores(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def block_sizes(scorer: ScorerSize, n_tests: int, memory_budget: int) -> tuple[int, int]:
    """Tests and train rows per block.

    Each block of tests is solved for once and then meets every train row, whose gradients are taken anew: blocks of
    tests are therefore as large as half the budget allows, blocks of train rows as large as serves speed and fits the
    other half.
    """
    half = max(0, memory_budget - scorer.bytes_held) // 2
    kept = BYTES_PER_KEPT * scorer.n_train if ranks_whole_rows(scorer) else 0
    # At least a hundred train rows must fit beside the tests, else products degenerate to vectors.
    test_rows = max(1, min(n_tests, half // (scorer.bytes_per_query + kept + 1), half // (100 * BYTES_PER_PAIR)))
    enough = max(100, _PAIRS_PER_BLOCK // test_rows)
    train_rows = max(1, min(scorer.n_train, enough, half // block_row_bytes(scorer, test_rows)))
    return test_rows, train_rows


def block_row_bytes(scorer: ScorerSize, test_rows: int) -> int:
    """What a train row adds to a block: its gradients beside the products, later the scores being ranked."""
    return max(scorer.bytes_per_row + test_rows * BYTES_PER_PRODUCT, test_rows * BYTES_PER_PAIR)


class Leaders:
    """Running k best of a stream of score blocks, for each test.

    Score and train row are packed into one int64, ordered by score and then by lower row: all keys differ, so the
    selection is the same in whatever pieces they come.
    """

    def __init__(self, k: int, largest: bool) -> None:
        self.k = k
        self.largest = largest
        self.keys: Tensor | None = None

    def update(self, scores: Tensor, rows: Tensor) -> None:
        """Take in scores [tests, rows], float32, of train rows [rows], or [tests, rows] where each test has its own."""
        keys = _pack(scores if self.largest else -scores, rows)
        if keys.shape[1] > self.k:
            keys = keys.topk(self.k, dim=1, sorted=False).values
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], 1)
        self.keys = keys.topk(min(self.k, keys.shape[1]), dim=1).values

    def result(self) -> tuple[Tensor, Tensor]:
        """Train rows and scores, best first, [tests, k], on the CPU."""
        assert self.keys is not None
        index, scores = _unpack(self.keys.cpu())
        return index, scores if self.largest else 0.0 - scores


def _pack(scores: Tensor, rows: Tensor) -> Tensor:
    """Keys that sort like (score, −row)."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns −0 into 0, its equal
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # reverses the order of negative floats, whose bits grow downwards
    return (ordered.to(torch.int64) << _INDEX_BITS) | (_INDEX_MASK - rows)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and scores of keys."""
    ordered = (keys >> _INDEX_BITS).to(torch.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return _INDEX_MASK - (keys & _INDEX_MASK), bits.view(torch.float32)
