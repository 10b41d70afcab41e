"""Best train instances of every test, as evaluations of instance methods read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.evaluation.marks import Marks
from twinlens.attribution.instance.protocol import InstanceScores


@dataclass(frozen=True)
class InstanceLists:
    """Best train instances of every test, for each seed of the method (one where it draws nothing).

    Attributes:
        index: row of the test in its split, [tests].
        top_index: best train rows, best first, [seeds, tests, k].
        top_score: their scores, [seeds, tests, k].
        top_k: length that was asked for; k is smaller where there are fewer train examples.
        twin: train row of each test's planted near-duplicate, −1 where it has none, [tests]; None for data without.
        bottom_index: worst train rows, worst first, [seeds, tests, k].
        twin_speaks_against: whether more training on the twin makes what is explained less likely, as its label is
            another, so that a method with a sign has to list it among the worst, [tests], bool; None: it never does.
        marks: which train rows tell what a test asks; None: the data do not say.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.instance_lists import InstanceLists
        >>> from twinlens.attribution.instance.protocol import InstanceScores
        >>> rows, values = torch.tensor([[2, 0]]), torch.tensor([[0.9, 0.1]])
        >>> seeds = [InstanceScores(torch.tensor([5]), rows, values, rows.flip(1), values.flip(1)) for _ in range(3)]
        >>> InstanceLists.of(seeds, top_k=2).top_index.shape  # [seeds, tests, k]
        torch.Size([3, 1, 2])
    """

    index: Tensor
    top_index: Tensor
    top_score: Tensor
    top_k: int
    twin: Tensor | None = None
    bottom_index: Tensor | None = None
    twin_speaks_against: Tensor | None = None
    marks: Marks | None = None

    @property
    def end_of_twin(self) -> Tensor:
        """The list in which each test's twin has to stand, first place first, [seeds, tests, k]."""
        if self.twin_speaks_against is None or self.bottom_index is None:
            return self.top_index
        return torch.where(self.twin_speaks_against[:, None], self.bottom_index, self.top_index)

    @staticmethod
    def of(
        scores: Sequence[InstanceScores],
        top_k: int,
        twin: Tensor | None = None,
        twin_speaks_against: Tensor | None = None,
        marks: Marks | None = None,
    ) -> InstanceLists:
        """Collect the scores of a method's seeds.

        Args:
            scores: of each seed, the same tests in the same order.
            top_k: length that was asked for.
            twin, twin_speaks_against, marks: see `InstanceLists`.

        Raises:
            ValueError: seeds of other tests, or in another order.
        """
        if any(not torch.equal(s.index, scores[0].index) for s in scores):
            raise ValueError("The seeds of a method must hold the same tests in the same order.")
        return InstanceLists(
            scores[0].index,
            torch.stack([s.top_index for s in scores]),
            torch.stack([s.top_score for s in scores]),
            top_k,
            twin,
            torch.stack([s.bottom_index for s in scores]),
            twin_speaks_against,
            marks,
        )
