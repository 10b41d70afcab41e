"""Accuracy and macro-F1 of the model itself (Table 5 of first paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from twinlens.attribution.evaluation.result import Result


@dataclass(frozen=True)
class Accuracy:
    """Accuracy with its binomial standard error, and macro-F1, both as fractions from 0 to 1; higher is better.

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
        return [
            Result("accuracy", accuracy, stderr, n=n, split=split, better="higher"),
            Result("macro_f1", f1, None, n=n, split=split, better="higher"),
        ]
