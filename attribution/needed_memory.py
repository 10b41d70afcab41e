"""Memory that a computation over a batch needs beside the weights, so that batches can be cut to fit a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """Memory of a computation over a batch, beside the weights: bytes of one example by the batch's columns.

    Attributes:
        least: peak where the work is cut as fine as it can be.
        most: peak where it is not cut at all.
        step: what each further piece adds that is worked on at the same time; None: pieces are small.

    Example:
        >>> from twinlens.attribution.needed_memory import Need
        >>> need = Need(least=lambda columns: 10 * columns, most=lambda columns: 50 * columns)
        >>> need.examples(n=8, columns=4, budget=100)  # of 40 bytes each at least
        2
        >>> need.peak(n=8, columns=4, budget=100), need.peak(n=8, columns=4, budget=1000)  # cut to the budget
        (100, 1000)
    """

    least: Callable[[int], int]
    most: Callable[[int], int]
    step: Callable[[int], int] | None = None

    def lengthened(self, columns_of: Callable[[int], int], more: int = 0) -> Need:
        """The need of a computation that reads other columns than the batch has.

        Args:
            columns_of: the batch's columns → those that are read.
            more: bytes of each example beside.
        """

        def of(part: Callable[[int], int]) -> Callable[[int], int]:
            return lambda columns: part(columns_of(columns)) + more

        return Need(of(self.least), of(self.most), None if self.step is None else of(self.step))

    def by_windows(self, window: int | None, kept: Callable[[int], int] = lambda columns: 0) -> Need:
        """The need where a longer text is read window by window, as many at a time as there is room for.

        Args:
            window: columns of a window; None: a text has one.
            kept: bytes that stay of a text of some columns until its last window is read.

        Example:
            >>> from twinlens.attribution.needed_memory import Need
            >>> whole = Need(least=lambda columns: 10 * columns, most=lambda columns: 10 * columns)
            >>> need = whole.by_windows(4)
            >>> need.least(12), need.most(12), need.windows(n=1, columns=12, budget=90)  # one, all three, and two
            (40, 120, 2)
        """
        if window is None:
            return self

        def one(columns: int) -> int:
            return self.most(min(columns, window))

        def least(columns: int) -> int:
            return one(columns) if columns <= window else one(columns) + kept(columns)

        def most(columns: int) -> int:
            return least(columns) + (-(-columns // window) - 1) * one(columns)

        return Need(least, most, one)

    def windows(self, n: int, columns: int, budget: int) -> int:
        """How many windows of n texts a call reads at a time, one of each at least; of a need `by_windows`."""
        if self.step is None:
            return n
        room = budget - n * self.least(columns)
        return n + max(0, room) // max(1, self.step(columns))

    def examples(self, n: int, columns: int, budget: int) -> int:
        """How many of n examples a call takes, one at least."""
        return max(1, min(n, budget // max(1, self.least(columns))))

    def peak(self, n: int, columns: int, budget: int) -> int:
        """Peak of a batch of n examples."""
        count = self.examples(n, columns, budget)
        least, most = count * self.least(columns), count * self.most(columns)
        if self.step is not None and least < budget < most:
            piece = max(1, count * self.step(columns))
            return least + (budget - least) // piece * piece
        return max(least, min(most, budget))
