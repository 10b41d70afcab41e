"""Streaming of scores that are inner products of gradients, without computing most of those that cannot count.

No inner product exceeds the product of the two lengths. Train examples therefore come by falling length, and a test
drops out once no later example can enter either of its lists. In a trained model few examples have a large gradient,
and few pairs are left. The highest score of each train example over all tests is found by the same bound, from the
longest tests down; the sum over tests needs no pair at all. Lists and maxima are exact, ties included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.instance.factors import LayerFactors, combine, gram, project, squared_norms
from twinlens.attribution.instance.leaders import Leaders
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.instance.train_summary import TrainSummary, count_votes

Gradients = Sequence[LayerFactors]

_ROWS_AT_ONCE = 512
"""Train examples of a block at most: tests drop out between blocks."""
_TESTS_AT_ONCE = 64
"""Tests that a block of train examples meets at a time while its maxima are settled."""


@runtime_checkable
class InnerProductScorer(Protocol):
    """An `InstanceScorer` whose scores are inner products of gradients in factors; its `query` gives the tests'.

    Attributes:
        lengths: Euclidean length of each train gradient, [n_train], float64, finite.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.bounded import InnerProductScorer
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> train, test = example_head_inputs()
        >>> scorer = GradientSimilarity().prepare(train, BUDGET)
        >>> isinstance(scorer, InnerProductScorer), scorer.lengths.round(decimals=2)
        (True, tensor([0.3400, 1.7600, 0.3400, 0.2400], dtype=torch.float64))
    """

    lengths: Tensor

    def train_gradients(self, rows: Tensor) -> list[LayerFactors]:
        """Gradients of train examples by their row numbers, [rows], in the type of the products."""


def bounded_scores(
    scorer: InnerProductScorer, query: Gradients, index: Tensor, top_k: int, train_rows: int
) -> tuple[InstanceScores, TrainSummary]:
    """Score a block of tests against all train examples.

    Args:
        scorer: prepared on the train split.
        query: gradients of the tests, in the type of the products.
        index: rows of the tests in their split, [tests].
        top_k: length of the lists.
        train_rows: train examples of a block.

    Returns:
        The lists, on the CPU, and the summary of these tests.

    Raises:
        UserError: if a score is NaN or infinite, with the tests' indices.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.bounded import bounded_scores
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> train, test = example_head_inputs()
        >>> scorer = GradientSimilarity().prepare(train, BUDGET)
        >>> query = scorer.query(test, torch.arange(2))
        >>> lists, summary = bounded_scores(scorer, query, torch.arange(2), top_k=2, train_rows=4)
        >>> lists.top_index  # [tests, k], the best train rows
        tensor([[0, 3],
                [2, 3]])
    """
    lengths = squared_norms(query).sqrt().double()
    require_finite(lengths, "An instance score", index)
    reach = scorer.lengths.to(lengths.device) * (1 + _slack(query))
    order, by_length = reach.argsort(descending=True, stable=True), lengths.argsort(descending=True)
    # much cancels in this sum; its product with a train gradient rounds no more than single scores do
    total = combine(_in_float64(query), lengths.new_ones(1, len(lengths))).to(query[0].inputs.dtype)
    best, worst = Leaders(top_k, largest=True), Leaders(top_k, largest=False)
    sums, maxima = lengths.new_empty(len(reach)), lengths.new_empty(len(reach))
    for rows in order.split(min(train_rows, _ROWS_AT_ONCE)):
        gradients = scorer.train_gradients(rows)
        sums[rows] = project(gradients, total)[0].double()
        can_enter = _can_enter(lengths * reach[rows[0]], best, worst)
        tests = None if bool(can_enter.all()) else can_enter.nonzero()[:, 0]
        block = gram(_at(query, tests), gradients)
        require_finite(block, "An instance score", index if tests is None else index[tests.cpu()])
        ranked = block.to(torch.float32)
        highest = ranked.amax(0).double() if len(ranked) else reach.new_full((len(rows),), -torch.inf)
        if tests is None or len(tests):
            best.update(ranked, rows, tests)
            worst.update(ranked, rows, tests)
        del block, ranked  # else they would stand beside the next block's
        if tests is not None:
            others = by_length[~can_enter[by_length]]
            _settle(highest, query, others, lengths, gradients, reach[rows])
        maxima[rows] = highest
    scores = InstanceScores(index, *best.result(), *worst.result())
    return scores, TrainSummary(sums.cpu(), maxima.cpu(), count_votes(scores, len(reach)), len(index))


def _can_enter(highest: Tensor, best: Leaders, worst: Leaders) -> Tensor:
    """Whether a score of at most this size, [tests], can enter one of the lists; an equal one can, see `Leaders`."""
    floors = best.floor(), worst.floor()
    if floors[0] is None or floors[1] is None:
        return torch.ones_like(highest, dtype=torch.bool)
    return highest >= torch.minimum(floors[0], floors[1])


def _settle(
    highest: Tensor, query: Gradients, tests: Tensor, lengths: Tensor, gradients: Gradients, reach: Tensor
) -> None:
    """Raise the highest scores of some train examples to what further tests give them, in place.

    Args:
        highest: so far, [rows].
        tests: further ones, the longest first.
        lengths: of all tests.
        gradients: of the train examples.
        reach: their lengths with the slack, [rows].
    """
    left = torch.arange(len(highest), device=highest.device)
    for some in tests.split(_TESTS_AT_ONCE):
        left = left[lengths[some[0]] * reach[left] > highest[left]]
        if len(left) == 0:
            return
        some_gradients = gradients if len(left) == len(highest) else _at(gradients, left)
        found = gram(_at(query, some), some_gradients).to(torch.float32).amax(0)
        highest[left] = torch.maximum(highest[left], found.double())


def _at(gradients: Gradients, index: Tensor | None) -> Gradients:
    return gradients if index is None else [f.at(index) for f in gradients]


def _in_float64(gradients: Gradients) -> Gradients:
    return [f.to(torch.float64) for f in gradients]


def _slack(query: Gradients) -> float:
    """How far rounding can carry a computed score above the product of the lengths, as a share of it."""
    terms = max(sum(f.inputs.shape[-1] + f.deltas.shape[-1] for f in query) * query[0].sequences, 1)
    return (terms + 8) * torch.finfo(query[0].inputs.dtype).eps + torch.finfo(torch.float32).eps
