"""Accuracy and macro-F1 of the model itself (Table 5 of first paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import wilson


def ends_of_f1(prediction: Tensor, label: Tensor, n_classes: int) -> tuple[float | None, float | None]:
    """95 % interval of macro-F1 over resampled examples; a class that a resample lacks does not count in it.

    Args:
        prediction, label: classes, [examples].
    """
    classes = torch.arange(n_classes)[:, None]
    predicted, gold = prediction.cpu() == classes, label.cpu() == classes

    def of_means(means: Tensor) -> Tensor:
        both, one, other = means.split(n_classes, 1)
        return (2 * both / (one + other)).nanmean(1)

    return ends(torch.cat([predicted & gold, predicted, gold]).double(), of_means)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy with its binomial standard error, and macro-F1, both as fractions from 0 to 1; higher is better.

    Their 95 % intervals are Wilson's and a bootstrap's over examples.

    Attributes:
        requires: predictions and labels of the explained split.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.accuracy import Accuracy
        >>> prediction, label = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, -1])  # the last has no label
        >>> rows = Accuracy().evaluate(prediction, label, n_classes=2, split="test")
        >>> [(row.metric, round(row.value, 2), row.n) for row in rows]
        [('accuracy', 0.67, 3), ('macro_f1', 0.67, 3)]
    """

    requires: Literal["examples"] = "examples"

    def evaluate(self, prediction: Tensor, label: Tensor, n_classes: int, split: str) -> list[Result]:
        """Two results over the labelled examples, none where there is no label.

        Args:
            prediction: predicted class, [examples].
            label: gold class, −1 where unknown, [examples].
        """
        known = label >= 0
        n = int(known.sum())
        if n == 0:
            return []
        prediction, label = prediction[known], label[known]
        accuracy = float(multiclass_accuracy(prediction, label, n_classes, average="micro"))
        f1 = float(multiclass_f1_score(prediction, label, n_classes, average="macro"))
        stderr = (accuracy * (1 - accuracy) / n) ** 0.5
        low, high = wilson(accuracy, n)
        f1_low, f1_high = ends_of_f1(prediction, label, n_classes)
        return [
            Result(
                "accuracy", accuracy, stderr, n=n, split=split, better="higher", low=low, high=high,
                samples=(prediction == label).double(),
            ),
            Result("macro_f1", f1, None, n=n, split=split, better="higher", low=f1_low, high=f1_high),
        ]  # fmt: skip
