"""Fine-tuning on the first n % of a ranking (first paper, Sec. 3.4 and 5.3, Figures 2 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.subsets import Subset, SubsetGrid

Fit = Callable[[Tensor, int], Tensor]
"""(train rows [rows], seed) → the predicted class of every explained example [tests] by a model fitted on them."""


@dataclass(frozen=True)
class Reference:
    """Predictions and labels that refitted models are compared with.

    Attributes:
        prediction: class predicted by the model that is explained, [tests].
        label: gold class, −1 where unknown, [tests]; folded classes where there is a fold.
        fold: folded class of each class of the model, [classes], or None.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.retraining import Reference, measures
        >>> reference = Reference(prediction=torch.tensor([0, 1, 1]), label=torch.tensor([0, 0, -1]))
        >>> found = measures(torch.tensor([[0, 1, 0]]), reference)  # one run; one example has no label
        >>> [(name, value.round(decimals=2).tolist(), n) for name, value, n in found]
        [('accuracy', [0.5], 2), ('preserved', [0.67], 3)]
    """

    prediction: Tensor
    label: Tensor
    fold: Tensor | None = None


@dataclass(frozen=True)
class Retraining(SubsetGrid):
    """Accuracy of, and predictions preserved by, a fresh model trained on part of the train split.

    `most`: the first n % of a method's ranking, `least`: the last n %, `random`: as many rows at random, the same for
    all methods. Every cell is fitted under each seed (new parameters and order of the rows); mean and standard error
    over seeds. Both numbers are fractions: `accuracy` over the labelled examples, `preserved` the share of all examples
    for which the new model predicts the class that the explained model predicted.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.retraining import Reference, Retraining
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> def fit(rows, seed):  # a "model" that answers the label that most of its train rows have
        ...     return torch.full((2,), int(labels[rows].mode().values))
        >>> test = Retraining(fractions=[50], groups=["most", "least"], seeds=[0])
        >>> reference = Reference(prediction=torch.tensor([1, 1]), label=torch.tensor([1, 0]))
        >>> rows = test.evaluate({"gradsim": torch.tensor([3, 2, 1, 0])}, fit, reference)
        >>> [(row.metric, row.group, row.value) for row in rows]
        [('accuracy', 'most', 0.5), ('preserved', 'most', 1.0), ('accuracy', 'least', 0.5), ('preserved', 'least', 0.0)]
    """

    requires: ClassVar[str] = "rankings"

    def missing(self, available: Available) -> str:
        """Name what the run lacks, empty where nothing is missing."""
        if not available.fits:
            return "a model that this run trains (fit=true): a trained classifier's recipe is not known"
        if not available.ranked():
            return "at least one instance method without seeds (e.g. method=gradsim)"
        return ""

    def evaluate(self, rankings: Mapping[str, Tensor], fit: Fit, reference: Reference) -> list[Result]:
        """Two results per cell, `accuracy` only where the explained split has labels.

        Args:
            rankings: method → train rows, best first, [n_train].
            fit: trains and predicts.
            reference: of the explained split.
        """
        cells: dict[tuple[str, str, float], list[tuple[Subset, int]]] = {}
        for subset in self.subsets(rankings):
            runs = self.seeds if subset.seed is None else [subset.seed]
            key = (subset.method, subset.group, subset.percent)
            cells.setdefault(key, []).extend((subset, seed) for seed in runs)
        results = []
        for (method, group, percent), runs_of_cell in cells.items():
            predictions = torch.stack([fit(subset.rows, seed) for subset, seed in runs_of_cell])
            for metric, values, n in measures(predictions, reference):
                mean, error = mean_and_error(values)
                results.append(
                    Result(
                        metric, mean, error, n=n, k=percent, group=group,
                        variant=self.variant, method=method, better="higher",
                    )
                )  # fmt: skip
        return results


def measures(predictions: Tensor, reference: Reference) -> list[tuple[str, Tensor, int]]:
    """(metric, value per run [runs] as a fraction, number of examples) for predictions [runs, tests]."""
    found = []
    known = reference.label >= 0
    if bool(known.any()):
        answers = predictions if reference.fold is None else reference.fold[predictions]
        right = (answers == reference.label)[:, known].double().mean(1)
        found.append(("accuracy", right, int(known.sum())))
    kept = (predictions == reference.prediction).double().mean(1)
    return [*found, ("preserved", kept, len(reference.prediction))]
