"""Base of evaluations that fit the model again on part of the train split; extend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from twinlens.attribution.evaluation.needs import Available, missing_fit, missing_rankings
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.train_ranking import RankBy

Fit = Callable[[Tensor, int], Tensor]
"""(train rows [rows], seed) → the predicted class of every explained example [tests] by a model fitted on them."""


@dataclass(frozen=True)
class Reference:
    """Predictions and labels that refitted models are compared with.

    Attributes:
        prediction: class predicted by the model that is explained, [tests].
        label: gold class, −1 where unknown, [tests]; folded classes where there is a fold.
        fold: folded class of each class of the model, [classes], or None.
        train_label: gold class of every train row, −1 where unknown, [n_train]; None: not known.
        label_names: of the train split's classes.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.refits import Reference
        >>> from twinlens.attribution.evaluation.retraining import measures
        >>> reference = Reference(prediction=torch.tensor([0, 1, 1]), label=torch.tensor([0, 0, -1]))
        >>> found = measures(torch.tensor([[0, 1, 0]]), reference)  # one run; one example has no label
        >>> [(name, outcomes.tolist()) for name, outcomes in found]
        [('accuracy', [[1.0, 0.0]]), ('preserved', [[1.0, 1.0, 0.0]])]
    """

    prediction: Tensor
    label: Tensor
    fold: Tensor | None = None
    train_label: Tensor | None = None
    label_names: Sequence[str] = ()


class Refits:
    """An evaluation that is given rankings of the train split and a function that fits.

    Attributes:
        rank_by: `mean | votes`, what the rankings are by.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.refits import Reference, Refits
        >>> from twinlens.attribution.evaluation.result import Result
        >>> class BestHalf(Refits):
        ...     def evaluate(self, rankings, fit, reference):
        ...         found = {name: fit(rows[: len(rows) // 2], 0) for name, rows in rankings.items()}
        ...         return [
        ...             Result("preserved", float((predicted == reference.prediction).double().mean()), method=name)
        ...             for name, predicted in found.items()
        ...         ]
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> def fit(rows, seed):  # a "model" that answers the label that most of its train rows have
        ...     return torch.full((2,), int(labels[rows].mode().values))
        >>> reference = Reference(prediction=torch.tensor([1, 0]), label=torch.tensor([1, 0]))
        >>> [row.value for row in BestHalf().evaluate({"gradsim": torch.tensor([3, 2, 1, 0])}, fit, reference)]
        [0.5]
    """

    requires: ClassVar[str] = "rankings"

    rank_by: RankBy = "mean"

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        return missing_fit(available) or missing_rankings(available)

    def evaluate(self, rankings: Mapping[str, Tensor], fit: Fit, reference: Reference) -> list[Result]:
        """Results over fits.

        Args:
            rankings: method → train rows, best first, [n_train].
            fit: trains and predicts.
            reference: of the explained split.
        """
        raise NotImplementedError

    def fits(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """Train rows and seed of every fit that `evaluate` asks for, for a plan; none: the evaluation does not say.

        Args:
            rankings: as in `evaluate`.
            label: gold class of every train row, [n_train], where it is known.
        """
        return []

    def expected_fits(self, n_train: int, n_methods: int) -> Sequence[int]:
        """Train rows of every fit while the rankings are still to be computed, for a plan."""
        return []
