"""Cost of a pass of an instance method, from shapes alone: peak memory and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twinlens.attribution.instance.block_sizes import (
    BYTES_PER_PAIR,
    BYTES_PER_PRODUCT,
    ScorerSize,
    block_row_bytes,
    block_sizes,
)


@dataclass(frozen=True)
class InstanceCost:
    """Memory and operations of an instance method's pass over n_test examples.

    Attributes:
        memory: peak in bytes, beside the cached features.
        operations: in the method's type; None where nothing is known of them.
        remark: the solver, where there is a choice.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.costs import PassSizes
        >>> from twinlens.attribution.instance.influence import Influence
        >>> sizes = PassSizes(example_head_inputs()[0].head, n_train=1000, n_test=10, tests=10, budget=BUDGET)
        >>> cost = Influence(curvature="ggn").cost(sizes)
        >>> cost.remark, 0 < cost.memory < BUDGET
        ('solver direct', True)
    """

    memory: int
    operations: float | None
    remark: str = ""


@dataclass(frozen=True)
class Block:
    """A scorer that is planned.

    Example:
        >>> from twinlens.attribution.instance.costs import Block, stream_memory
        >>> stream_memory(Block(n_train=100, bytes_per_query=32, bytes_per_row=32), n_tests=10, budget=2**20)
        48320
    """

    n_train: int
    bytes_per_query: int
    bytes_per_row: int
    bytes_held: int = 0


@dataclass(frozen=True)
class PassSizes:
    """What a pass is planned from.

    Attributes:
        head: the readout, perhaps without values.
        n_train, n_test: examples.
        tests: tests that are scored at a time, the rows of a shard.
        budget: bytes.
        sequences: sequences per example: 1, or the number of choices.
        checkpoints: weights that are read.

    Example:
        >>> from twinlens.attribution.example_models import example_head_inputs
        >>> from twinlens.attribution.instance.costs import PassSizes
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> head = example_head_inputs()[0].head
        >>> few, many = (PassSizes(head, n, n_test=10, tests=10, budget=2**20) for n in (100, 200))
        >>> GradientSimilarity().cost(many).operations / GradientSimilarity().cost(few).operations
        2.0
    """

    head: Any
    n_train: int
    n_test: int
    tests: int
    budget: int
    sequences: int = 1
    checkpoints: int = 1

    def streamed(
        self, bytes_per_query: int, bytes_per_row: int, held: int = 0, kept: tuple[int, int] | None = None
    ) -> int:
        """Peak of scoring blocks of tests against blocks of train rows, see `stream_memory`."""
        return stream_memory(Block(self.n_train, bytes_per_query, bytes_per_row, held), self.tests, self.budget, kept)


def stream_memory(block: ScorerSize, n_tests: int, budget: int, kept: tuple[int, int] | None = None) -> int:
    """One block of tests beside one block of train rows and their scores.

    Args:
        kept: bytes that are left of a test and of a train row once their gradients are taken; None: all.
    """
    tests, rows = block_sizes(block, n_tests, budget)
    if kept is not None:
        left = max(kept[1] + tests * BYTES_PER_PRODUCT, tests * BYTES_PER_PAIR)
        return max(tests * block.bytes_per_query, tests * kept[0] + rows * max(block.bytes_per_row, left))
    return tests * block.bytes_per_query + rows * block_row_bytes(block, tests)
