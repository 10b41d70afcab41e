"""Marks of train rows and tests, by which data say which documents tell what a query asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Marks:
    """Which train rows tell what a test asks.

    Attributes:
        train: mark of each train row, −1 where it has none, [n_train].
        test: mark of each test, −1 where it has none, [tests].
        kind: word that groups each test, empty for none, [tests].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.marks import Marks
        >>> Marks.of(["a", "", "b"], ["b", "c"], ["verbatim", "reworded"]).test  # nothing tells of c
        tensor([ 1, -1])
    """

    train: Tensor
    test: Tensor
    kind: tuple[str, ...]

    @staticmethod
    def of(train: Sequence[str], test: Sequence[str], kind: Sequence[str]) -> Marks:
        """Numbers of words; of a test whose word no train row has, −1.

        Args:
            train: of each train row, empty for none.
            test, kind: of each test, empty for none.
        """
        number = {word: n for n, word in enumerate(dict.fromkeys(word for word in train if word))}
        rows, tests = (torch.tensor([number.get(word, -1) for word in side]) for side in (train, test))
        return Marks(rows, tests, tuple(kind))
