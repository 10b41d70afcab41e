"""Numbers of tests and train rows that a block takes, so that a scorer keeps to a budget."""

from __future__ import annotations

from typing import Protocol

from twinlens.attribution.instance.ranks import BYTES_PER_KEPT, ranks_whole_rows

BYTES_PER_PAIR = 48
"""Working memory per score while it is ranked: float64 and float32 forms, sort keys and their selection."""

BYTES_PER_PRODUCT = 16
"""Working memory per score while it is computed, beside the gradients: a float64 product and its second factor."""

_PAIRS_PER_BLOCK = 2**20
"""Scores per block at most: larger blocks fall out of the caches and are slower, whatever memory there is."""


class ScorerSize(Protocol):
    """Sizes of a scorer, from which its blocks are cut.

    Attributes:
        n_train: number of train examples.
        bytes_per_query: working memory that one test example needs in `query` and while it is scored, in bytes.
        bytes_per_row: working memory that one train example needs in `scores`, in bytes, without the scores themselves.
        bytes_held: memory that the scorer holds for all tests, a factor of the curvature for example.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.block_sizes import ScorerSize, block_sizes
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> size: ScorerSize = GradientSimilarity().prepare(example_head_inputs()[0], BUDGET)
        >>> size.n_train, size.bytes_per_row, size.bytes_held
        (4, 32, 0)
        >>> block_sizes(size, n_tests=2, memory_budget=BUDGET)  # tests and train rows
        (2, 4)
    """

    @property
    def n_train(self) -> int: ...

    @property
    def bytes_per_query(self) -> int: ...

    @property
    def bytes_per_row(self) -> int: ...

    @property
    def bytes_held(self) -> int: ...


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
