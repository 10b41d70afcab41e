"""Fine-tuning on the first n % of a ranking (first paper, Sec. 3.4 and 5.3, Figures 2 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from twinlens.attribution.evaluation.refits import Fit, Reference, Refits
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error, wilson
from twinlens.attribution.evaluation.subsets import RANDOM, SAME_LABELS, Subset, SubsetGrid, label_mix
from twinlens.attribution.evaluation.train_ranking import share_of_rows


@dataclass(frozen=True)
class Retraining(SubsetGrid, Refits):
    """Accuracy of, and predictions preserved by, a fresh model trained on part of the train split.

    `most`: the first n % of a method's ranking, `least`: the last n %, `random`: as many rows at random, the same for
    all methods, `same_labels`: beside each of the first two as many random rows of every label (rows of the control
    with the method as `reference_group`). Every cell is fitted under each seed (new parameters and order of the rows);
    mean and standard error over seeds, and Wilson's interval over examples. Both numbers are fractions: `accuracy` over
    the labelled examples, `preserved` the share of all examples for which the new model predicts the class that the
    explained model predicted. Of the rows themselves: `label_entropy` (nats) and `label_count` for each label.

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

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)

    def fits(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """Every subset under every seed, random ones under their own."""
        return [
            (subset.rows, seed)
            for subset in self.subsets(rankings, label)
            for seed in (self.seeds if subset.seed is None else [subset.seed])
        ]

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """No two subsets are taken for the same."""
        ends = len({"most", "least"} & set(self.groups)) * n_methods
        groups = ends + ("random" in self.groups)
        if "same_labels" in self.groups:
            groups += ends or 2 * n_methods
        sizes = [share_of_rows(n_train, percent) for percent in self.fractions]
        return [rows for rows in sizes for _ in range(groups * len(self.seeds))]

    def evaluate(self, rankings: Mapping[str, Tensor], fit: Fit, reference: Reference) -> list[Result]:
        """Two results per cell, `accuracy` only where the explained split has labels, and the labels of its rows.

        Args:
            rankings: method → train rows, best first, [n_train].
            fit: trains and predicts.
            reference: of the explained split.
        """
        cells: dict[tuple[str, str, float, str], list[tuple[Subset, int]]] = {}
        for subset in self.subsets(rankings, reference.train_label):
            runs = self.seeds if subset.seed is None else [subset.seed]
            key = (subset.method, subset.group, subset.percent, subset.like)
            cells.setdefault(key, []).extend((subset, seed) for seed in runs)
        results = []
        for (method, group, percent, like), runs_of_cell in cells.items():
            variant = ";".join(filter(None, [SAME_LABELS if like else "", self.variant]))
            predictions = torch.stack([fit(subset.rows, seed) for subset, seed in runs_of_cell])
            for metric, outcomes in measures(predictions, reference):
                mean, error = mean_and_error(outcomes.mean(1))
                low, high = wilson(mean, outcomes.shape[1])
                results.append(
                    Result(
                        metric, mean, error, n=outcomes.shape[1], k=percent, group=group, low=low, high=high,
                        variant=variant, method=method, better="higher", control=method == RANDOM,
                        samples=outcomes, reference_group=like,
                    )
                )  # fmt: skip
            if reference.train_label is not None and not like:  # which have the labels of those that they stand beside
                chosen = {subset.seed: subset for subset, _ in runs_of_cell}.values()
                results += self._labels([subset.rows for subset in chosen], reference, method, group, percent)
        return results

    def _labels(
        self, drawn: Sequence[Tensor], reference: Reference, method: str, group: str, percent: float
    ) -> list[Result]:
        """Entropy of the labels of a cell's rows, and how many rows of each label there are; means over its draws."""
        assert reference.train_label is not None, "asked for where train labels are known"
        mixes = [label_mix(rows, reference.train_label, len(reference.label_names)) for rows in drawn]
        cells: dict[str, Any] = {"n": len(drawn[0]), "k": percent, "group": group, "method": method,
                                 "variant": self.variant, "control": method == RANDOM}  # fmt: skip
        entropy, error = mean_and_error([of_draw for _, of_draw in mixes])
        counts = torch.stack([of_draw for of_draw, _ in mixes]).double()
        return [
            Result("label_entropy", entropy, error, **cells),
            *(
                Result("label_count", *mean_and_error(counts[:, number]), reference_group=name, **cells)
                for number, name in enumerate(reference.label_names)
            ),
        ]


def measures(predictions: Tensor, reference: Reference) -> list[tuple[str, Tensor]]:
    """(metric, whether it is so of each example, 0 or 1, float64 [runs, examples]) for predictions [runs, tests]."""
    found = []
    known = reference.label >= 0
    if bool(known.any()):
        answers = predictions if reference.fold is None else reference.fold[predictions]
        found.append(("accuracy", (answers == reference.label)[:, known].double()))
    return [*found, ("preserved", (predictions == reference.prediction).double())]
