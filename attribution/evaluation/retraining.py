"""Fine-tuning on the first n % of a ranking (first paper, Sec. 3.4 and 5.3, Figures 2 and 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.evaluation.refits import Fit, Reference, Refits
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error, wilson
from twinlens.attribution.evaluation.subsets import Subset, SubsetGrid
from twinlens.attribution.evaluation.train_ranking import share_of_rows


@dataclass(frozen=True)
class Retraining(SubsetGrid, Refits):
    """Accuracy of, and predictions preserved by, a fresh model trained on part of the train split.

    `most`: the first n % of a method's ranking, `least`: the last n %, `random`: as many rows at random, the same for
    all methods. Every cell is fitted under each seed (new parameters and order of the rows); mean and standard error
    over seeds, and Wilson's interval over examples. Both numbers are fractions: `accuracy` over the labelled examples,
    `preserved` the share of all examples for which the new model predicts the class that the explained model predicted.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.refits import Reference
        >>> from twinlens.attribution.evaluation.retraining import Retraining
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> def fit(rows, seed):  # a "model" that answers the label that most of its train rows have
        ...     return torch.full((2,), int(labels[rows].mode().values))
        >>> test = Retraining(fractions=[50], groups=["most", "least"], seeds=[0])
        >>> reference = Reference(prediction=torch.tensor([1, 1]), label=torch.tensor([1, 0]))
        >>> rows = test.evaluate({"gradsim": torch.tensor([3, 2, 1, 0])}, fit, reference)
        >>> [(row.metric, row.group, row.value) for row in rows]
        [('accuracy', 'most', 0.5), ('preserved', 'most', 1.0), ('accuracy', 'least', 0.5), ('preserved', 'least', 0.0)]
    """

    def fits(self, rankings: Mapping[str, Tensor]) -> list[tuple[Tensor, int]]:
        """Every subset under every seed, random ones under their own."""
        return [
            (subset.rows, seed)
            for subset in self.subsets(rankings)
            for seed in (self.seeds if subset.seed is None else [subset.seed])
        ]

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """No two subsets are taken for the same."""
        groups = len({"most", "least"} & set(self.groups)) * n_methods + ("random" in self.groups)
        sizes = [share_of_rows(n_train, percent) for percent in self.fractions]
        return [rows for rows in sizes for _ in range(groups * len(self.seeds))]

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
            for metric, outcomes in measures(predictions, reference):
                mean, error = mean_and_error(outcomes.mean(1))
                low, high = wilson(mean, outcomes.shape[1])
                results.append(
                    Result(
                        metric, mean, error, n=outcomes.shape[1], k=percent, group=group, low=low, high=high,
                        variant=self.variant, method=method, better="higher", control=group == "random",
                        samples=outcomes,
                    )
                )  # fmt: skip
        return results


def measures(predictions: Tensor, reference: Reference) -> list[tuple[str, Tensor]]:
    """(metric, whether it is so of each example, 0 or 1, float64 [runs, examples]) for predictions [runs, tests]."""
    found = []
    known = reference.label >= 0
    if bool(known.any()):
        answers = predictions if reference.fold is None else reference.fold[predictions]
        found.append(("accuracy", (answers == reference.label)[:, known].double()))
    return [*found, ("preserved", (predictions == reference.prediction).double())]
