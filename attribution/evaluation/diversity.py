"""Diversity of the most and least influential instances, and accuracy regressed on it (first paper, Sec. 6.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from twinlens.attribution.evaluation.needs import Available, missing_rankings
from twinlens.attribution.evaluation.regression import regression
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.subsets import Group, SubsetGrid
from twinlens.attribution.evaluation.train_ranking import RankBy

METRICS = ("cosine_similarity", "loss", "vocabulary", "input_length")


@dataclass(frozen=True)
class TrainFacts:
    """Facts about the train split that subsets are described by.

    Attributes:
        hidden: last block's hidden state at the answer position (the head's input), [n_train, hidden].
        loss: the explained model's loss, nats, NaN where there is no label, [n_train].
        tokens: token ids of each example's input, all its sequences together.
        length: tokens of each example's input, the mean of its sequences where it has several, [n_train].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.diversity import TrainFacts, describe
        >>> facts = TrainFacts(
        ...     hidden=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), loss=torch.tensor([0.2, 0.4]),
        ...     tokens=[[1, 2], [2, 3, 4]], length=torch.tensor([2, 3]),
        ... )
        >>> {metric: round(value, 2) for metric, value in describe(torch.tensor([0, 1]), facts).items()}
        {'cosine_similarity': 0.71, 'loss': 0.3, 'vocabulary': 4.0, 'input_length': 2.5}
    """

    hidden: Tensor
    loss: Tensor
    tokens: Sequence[Sequence[int]]
    length: Tensor


@dataclass(frozen=True)
class Diversity:
    """Four metrics of each subset that `retraining` trains on, and the regression of its accuracy on them.

    `cosine_similarity`: mean over all pairs of the subset; `loss`: mean, nats; `vocabulary`: number of different
    tokens; `input_length`: mean tokens. Random subsets: mean and standard error over seeds. `coefficient` (group =
    metric): ordinary least squares of accuracy on the four metrics as they are (with an intercept), one point per
    subset size, method and group; its interval is Student's. `coefficient_standardised`: the same in standard
    deviations of accuracy and metric. `vif`: by how much correlation with the other metrics inflates the square of its
    error.

    Args:
        of: name of the evaluation whose subsets are described and whose accuracy is regressed.
        fractions, rank_by, seeds, groups: None: as in that evaluation, or its defaults where the run has none.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.diversity import Diversity, TrainFacts
        >>> facts = TrainFacts(torch.eye(4), torch.tensor([0.1, 0.2, 0.3, 0.4]), [[1], [1], [2], [3]], torch.ones(4))
        >>> rankings = {"gradsim": torch.tensor([3, 2, 1, 0])}
        >>> rows = Diversity(fractions=[50], groups=["most", "least"]).evaluate(rankings, facts)
        >>> [(row.group, round(row.value, 2)) for row in rows if row.metric == "loss"]  # nats
        [('most', 0.35), ('least', 0.15)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    of: str = "retraining"
    fractions: Sequence[float] | None = None
    rank_by: RankBy | None = None
    seeds: Sequence[int] | None = None
    groups: Sequence[Group] | None = None
    requires: ClassVar[str] = "subsets"

    def __post_init__(self) -> None:
        self._filled(SubsetGrid())  # refuses sizes that no subset has before anything is read

    def after(self, evaluations: Mapping[str, Any]) -> Diversity:
        """This evaluation with what it leaves open taken from the one it is about."""
        other = evaluations.get(self.of)
        return replace(self, **vars(self._filled(other if isinstance(other, SubsetGrid) else SubsetGrid())))

    @property
    def grid(self) -> SubsetGrid:
        """The subsets that are described."""
        return self._filled(SubsetGrid())

    def _filled(self, grid: SubsetGrid) -> SubsetGrid:
        return SubsetGrid(
            grid.fractions if self.fractions is None else self.fractions,
            grid.rank_by if self.rank_by is None else self.rank_by,
            grid.seeds if self.seeds is None else self.seeds,
            grid.groups if self.groups is None else self.groups,
        )

    def missing(self, available: Available) -> str:
        """Name what the run lacks, empty where nothing is missing."""
        return missing_rankings(available)

    def evaluate(self, rankings: Mapping[str, Tensor], train: TrainFacts) -> list[Result]:
        """Four results per cell; without the similarity for a single row, without the loss where there is no label.

        Args:
            rankings: method → train rows, best first, [n_train].
            train: the train split in row order.
        """
        grid = self.grid
        cells: dict[tuple[str, str, float], list[dict[str, float]]] = {}
        sizes: dict[tuple[str, str, float], int] = {}
        for subset in grid.subsets(rankings):
            key = (subset.method, subset.group, subset.percent)
            cells.setdefault(key, []).append(describe(subset.rows, train))
            sizes[key] = len(subset.rows)
        results = []
        for (method, group, percent), runs in cells.items():
            for metric in dict.fromkeys(metric for run in runs for metric in run):
                mean, error = mean_and_error([run[metric] for run in runs if metric in run])
                n = sizes[method, group, percent]
                results.append(
                    Result(
                        metric, mean, error, n=n, k=percent, group=group, variant=grid.variant, method=method,
                        control=group == "random",
                    )
                )  # fmt: skip
        return results

    def regress(self, described: Sequence[Result], retrained: Sequence[Result]) -> list[Result] | str:
        """Coefficients with standard errors, or a sentence on why there are none.

        Args:
            described: from `evaluate`.
            retrained: results of the evaluation `of`, of which `accuracy` counts.
        """
        if not retrained:
            return f"no regression: needs the accuracy of evaluation={self.of} in the same run"
        accuracy = {_cell(result): result.value for result in retrained if result.metric == "accuracy"}
        points: dict[tuple[str, str, float | None, str], dict[str, float]] = {}
        for result in described:
            if _cell(result) in accuracy:
                points.setdefault(_cell(result), {})[result.metric] = result.value
        whole = {cell: values for cell, values in points.items() if len(values) == len(METRICS)}
        needed = len(METRICS) + 2
        if len(whole) < needed:
            return (
                f"no regression: {len(whole)} subset(s) with an accuracy do not determine {len(METRICS)} coefficients "
                f"and their errors; expected {needed} or more: add methods or fractions to evaluation.{self.of}"
            )
        x = torch.tensor([[values[metric] for metric in METRICS] for values in whole.values()], dtype=torch.float64)
        y = torch.tensor([accuracy[cell] for cell in whole], dtype=torch.float64)
        fitted = regression(x, y)
        if fitted is None:
            return "no regression: one metric is a linear function of the others over all subsets"
        results = []
        for place, metric in enumerate(METRICS):
            cells: dict[str, Any] = {"n": len(y), "group": metric, "variant": self.grid.variant}
            low, high = fitted.interval(place)
            value, error = float(fitted.coefficients[place]), float(fitted.errors[place])
            results += [
                Result("coefficient", value, error, low=low, high=high, **cells),
                Result("coefficient_standardised", float(fitted.standardised[place]), **cells),
                Result("vif", float(fitted.inflation[place]), **cells),
            ]
        return results


def _cell(result: Result) -> tuple[str, str, float | None, str]:
    return result.method, result.group, result.k, result.variant


def describe(rows: Tensor, train: TrainFacts) -> dict[str, float]:
    """Metric → value for a subset of the train split.

    Args:
        rows: train rows of the subset, [rows].
        train: of the whole split.
    """
    tokens = torch.cat([torch.as_tensor(train.tokens[row], dtype=torch.int64) for row in rows.tolist()])
    loss = train.loss[rows].double()
    found = {
        "loss": float(loss.nanmean()),
        "vocabulary": float(len(torch.unique(tokens))),
        "input_length": float(train.length[rows].double().mean()),
    }
    if len(rows) > 1:
        found = {"cosine_similarity": mean_cosine(train.hidden[rows]), **found}
    return {metric: value for metric, value in found.items() if not math.isnan(value)}


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine similarity over all pairs of different vectors [n, hidden], n ≥ 2, in O(n).

    The sum of all n² inner products of the unit vectors is the squared norm of their sum. A zero vector is similar to
    none.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.diversity import mean_cosine
        >>> round(mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])), 4)  # 1, 0 and 0 for the three pairs
        0.3333
    """
    units = torch.nn.functional.normalize(vectors.double(), dim=1)
    n = len(units)
    all_pairs = units.sum(0).square().sum() - units.square().sum()
    return float(all_pairs / (n * (n - 1)))
