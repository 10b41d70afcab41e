"""Designed series of subsets: one label mix, diversity set by construction, and what it does to accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.diversity import METRICS, TrainFacts, describe
from twinlens.attribution.evaluation.refits import Fit, Reference, Refits
from twinlens.attribution.evaluation.regression import regression
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.retraining import measures
from twinlens.attribution.evaluation.subsets import Subset
from twinlens.attribution.evaluation.train_ranking import share_of_rows

GROUP = "designed"
SIMILARITY = "cosine_similarity"
DESCRIBED = tuple(f"designed_{metric}" for metric in METRICS)
"""Metrics of each subset, `reference_group` its number."""
CLOSE = 1e-6
"""Distance from a wanted mean cosine at which nothing is left to do."""
PROPOSALS = 128
"""Exchanges that are looked at in a step; the best one is made."""


@dataclass(frozen=True)
class DiversitySeries(Refits):
    """Accuracy over a series of subsets that differ in their cosine similarity and not in their labels.

    All subsets have the train split's label mix. The first and the last are as diverse and as uniform as exchanges of
    rows of one label make them; those between them have similarities evenly spaced between these two. Each subset is
    fitted under every seed. Of each (`reference_group` its number): `designed_accuracy`, `designed_cosine_similarity`,
    `designed_loss`, `designed_vocabulary`, `designed_input_length`.

    Of the series: `slope`, change of accuracy per unit of similarity by ordinary least squares, with 95 % interval;
    `slope_standardised`, in standard deviations; `slope_beside_others`, with the loss, vocabulary and length of the
    subsets in the regression, and `vif`, by how much these inflate the square of its error; `change_over_series`, the
    slope times the range of similarities.

    Args:
        fraction: size of a subset in per cent of the train split.
        subsets_asked: number of subsets.
        seeds: of every fit.
        design_seed: of the first rows and the proposed exchanges.
        steps: exchanges at most on the way to one subset.

    Raises:
        UserError: fewer than seven subsets, no seed, or a size outside (0, 100].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.diversity import TrainFacts
        >>> from twinlens.attribution.evaluation.diversity_series import DiversitySeries
        >>> angle = torch.linspace(0, 3, 40)
        >>> hidden, label = torch.stack([angle.cos(), angle.sin()], 1), torch.arange(40) % 2
        >>> train = TrainFacts(hidden, torch.rand(40), [[n] for n in range(40)], torch.arange(40.0))
        >>> series = DiversitySeries(fraction=25, subsets_asked=7, steps=50).with_train(train)
        >>> [int(label[one.rows].sum()) for one in series.subsets({}, label)]  # five of ten rows, as in the split
        [5, 5, 5, 5, 5, 5, 5]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    fraction: float = 10
    subsets_asked: int = 50
    seeds: Sequence[int] = (0,)
    design_seed: int = 0
    steps: int = 1000
    train: TrainFacts | None = None

    def __post_init__(self) -> None:
        if self.subsets_asked < len(METRICS) + 3 or not self.seeds or not 0 < self.fraction <= 100:
            raise UserError(
                f"evaluation.diversity_series has subsets_asked={self.subsets_asked}, seeds={list(self.seeds)} and "
                f"fraction={self.fraction:g}; expected at least {len(METRICS) + 3} subsets for its regression, a seed "
                "and a size above 0 and at most 100: change them."
            )

    def with_train(self, train: TrainFacts) -> DiversitySeries:
        """This evaluation with the rows that it makes subsets of."""
        return replace(self, train=train)

    def fits(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """Every subset under every seed; none to a plan, which has no states of the train split to make them of."""
        if self.train is None:
            return []
        return [(subset.rows, seed) for subset in self.subsets(rankings, label) for seed in self.seeds]

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """No two subsets are taken for the same."""
        return [share_of_rows(n_train, self.fraction)] * (self.subsets_asked * len(self.seeds))

    def subsets(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[Subset]:
        """The series, from the most diverse subset to the most uniform one; their numbers stand as their seeds.

        Args:
            rankings: not used.
            label: of every train row, [n_train]; None: all rows count as of one label.
        """
        assert self.train is not None, "with_train comes first"
        units = normalize(self.train.hidden.double(), dim=1)
        label = torch.zeros(len(units), dtype=torch.int64) if label is None else label
        generator = torch.Generator().manual_seed(self.design_seed)
        size = share_of_rows(len(units), self.fraction)

        def designed(target: float, start: Tensor) -> Tensor:
            return exchanged(start, units, label, target, self.steps, generator)

        start = stratified(label, size, generator)
        lowest, highest = designed(-1.0, start), designed(1.0, start)
        ends = [mean_similarity(units[rows]) for rows in (lowest, highest)]
        targets = torch.linspace(ends[0], ends[1], self.subsets_asked, dtype=torch.float64).tolist()
        between = [designed(target, stratified(label, size, generator)) for target in targets[1:-1]]
        rows_of_all = [lowest, *between, highest]
        return [Subset(GROUP, "random", self.fraction, number, rows) for number, rows in enumerate(rows_of_all)]

    def evaluate(self, rankings: Mapping[str, Tensor], fit: Fit, reference: Reference) -> list[Result]:
        """Rows of every subset, and the regressions; none without labels of the explained split.

        Args:
            rankings: not used.
            fit: trains and predicts.
            reference: of the explained split, with the labels of the train split.
        """
        assert self.train is not None, "with_train comes first"
        results, points, accuracies = [], [], []
        for number, subset in enumerate(self.subsets(rankings, reference.train_label)):
            predictions = torch.stack([fit(subset.rows, seed) for seed in self.seeds])
            found = dict(measures(predictions, reference))
            if "accuracy" not in found:
                return []
            accuracies.append(float(found["accuracy"].mean()))
            points.append(describe(subset.rows, self.train))
            cells: dict[str, Any] = {"k": self.fraction, "group": GROUP, "reference_group": str(number)}
            results.append(Result("designed_accuracy", accuracies[-1], n=found["accuracy"].shape[1], **cells))
            results += [
                Result(f"designed_{metric}", value, n=len(subset.rows), **cells) for metric, value in points[-1].items()
            ]
        return [*results, *self._slopes(points, torch.tensor(accuracies, dtype=torch.float64))]

    def _slopes(self, points: Sequence[Mapping[str, float]], y: Tensor) -> list[Result]:
        columns = [metric for metric in METRICS if all(metric in point for point in points)]
        if SIMILARITY not in columns:
            return []
        x = torch.tensor([[point[metric] for metric in columns] for point in points], dtype=torch.float64)
        place, results = columns.index(SIMILARITY), []
        cells: dict[str, Any] = {"n": len(y), "k": self.fraction, "group": SIMILARITY}
        alone, beside = regression(x[:, [place]], y), regression(x, y)
        if alone is not None:
            low, high = alone.interval(0)
            spread = float(x[:, place].max() - x[:, place].min())
            slope, error = float(alone.coefficients[0]), float(alone.errors[0])
            results = [
                Result("slope", slope, error, low=low, high=high, **cells),
                Result("slope_standardised", float(alone.standardised[0]), **cells),
                Result(
                    "change_over_series", slope * spread, error * spread, low=low * spread, high=high * spread, **cells
                ),
            ]
        if beside is not None:
            low, high = beside.interval(place)
            value, error = float(beside.coefficients[place]), float(beside.errors[place])
            results += [
                Result("slope_beside_others", value, error, low=low, high=high, **cells),
                Result("vif", float(beside.inflation[place]), **cells),
            ]
        return results


def mean_similarity(units: Tensor) -> float:
    """Mean cosine over all pairs of different unit vectors [rows, hidden]."""
    n = len(units)
    return float((units.sum(0).square().sum() - units.square().sum()) / max(n * (n - 1), 1))


def stratified(label: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random rows with the label mix of all rows, as nearly as whole rows allow, [size].

    Args:
        label: of every row, [n].
        size: number of rows.
        generator: of the draw.
    """
    values, counts = label.unique(return_counts=True)
    exact = counts.double() * size / len(label)
    quota = exact.floor().long()
    largest = (exact - quota).sort(descending=True, stable=True).indices  # largest remainders
    quota[largest[: size - int(quota.sum())]] += 1
    order = torch.randperm(len(label), generator=generator)
    return torch.cat([order[label[order] == value][:n] for value, n in zip(values, quota.tolist(), strict=True)])


def exchanged(
    rows: Tensor, units: Tensor, label: Tensor, target: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Rows after exchanges with others of the same label, each of which brings their mean cosine nearer to a target.

    The sum of the unit vectors says the mean cosine of all pairs, so that an exchange costs one vector.

    Args:
        rows: to begin with, [size].
        units: unit vectors of all rows, [n, hidden].
        label: of all rows, [n].
        target: mean cosine that is wanted; out of reach, it makes the rows as diverse or as uniform as they get.
        steps: exchanges at most.
        generator: of the proposals.
    """
    rows = rows.clone()
    size, total = len(rows), units[rows].sum(0)
    inside = torch.zeros(len(label), dtype=torch.bool)
    inside[rows] = True
    own = float(units[rows].square().sum())
    for _ in range(steps if size > 1 else 0):
        out = torch.randint(size, (PROPOSALS,), generator=generator)
        into = torch.randint(len(label), (PROPOSALS,), generator=generator)
        fits = ~inside[into] & (label[into] == label[rows[out]])
        out, into = out[fits], into[fits]
        if len(out) == 0:
            continue
        moved = total + units[into] - units[rows[out]]
        squares = own + units[into].square().sum(1) - units[rows[out]].square().sum(1)
        found = (moved.square().sum(1) - squares) / (size * (size - 1))
        best = int((found - target).abs().argmin())
        now = (float(total.square().sum()) - own) / (size * (size - 1))
        if abs(now - target) < CLOSE:
            break
        if abs(float(found[best]) - target) >= abs(now - target):
            continue
        inside[rows[out[best]]], inside[into[best]] = False, True
        rows[out[best]], total, own = into[best], moved[best], float(squares[best])
    return rows
