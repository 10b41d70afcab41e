"""What an evaluation is that fits the model again on part of the train split; extend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.train_ranking import RankBy

Fit = Callable[[Tensor, int], Tensor]
"""(train rows [rows], seed) → the predicted class of every explained example [tests] by a model fitted on them."""


@dataclass(frozen=True)
class Reference:
    """What refitted models are compared with.

    Attributes:
        prediction: class predicted by the model that is explained, [tests].
        label: gold class, −1 where unknown, [tests]; folded classes where there is a fold.
        fold: folded class of each class of the model, [classes], or None.
    """

    prediction: Tensor
    label: Tensor
    fold: Tensor | None = None


class Refits:
    """An evaluation that is given rankings of the train split and a function that fits.

    Attributes:
        rank_by: `mean | votes`, what the rankings are by.
    """

    requires: ClassVar[str] = "rankings"

    rank_by: RankBy = "mean"

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        if not available.fits:
            return "a model that this run trains (fit=true): a trained classifier's recipe is not known"
        if not available.ranked():
            return "at least one instance method without seeds (e.g. method=gradsim)"
        return ""

    def evaluate(self, rankings: Mapping[str, Tensor], fit: Fit, reference: Reference) -> list[Result]:
        """Results over fits.

        Args:
            rankings: method → train rows, best first, [n_train].
            fit: trains and predicts.
            reference: of the explained split.
        """
        raise NotImplementedError

    def fits(self, rankings: Mapping[str, Tensor]) -> list[tuple[Tensor, int]]:
        """Train rows and seed of every fit that `evaluate` asks for, for a plan; none: the evaluation does not say."""
        return []

    def expected_fits(self, n_train: int, n_methods: int) -> Sequence[int]:
        """Train rows of every fit while the rankings are still to be computed, for a plan."""
        return []
