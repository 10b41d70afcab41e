"""Retraining for units: how far a unit's contribution falls without the train examples said to have built it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from twinlens.attribution.bridge.units import Units
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.needs import Available, missing_fit
from twinlens.attribution.evaluation.resampling import interval, resampled_means_of_runs
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.subsets import RANDOM, without
from twinlens.attribution.evaluation.train_ranking import RankBy, random_ranking, share_of_rows

MeasureUnits = Callable[[Tensor, int], Tensor]
"""(train rows, seed) → contribution of every chosen pair, [pairs], of a model fitted on them, float64, nats."""


@dataclass(frozen=True)
class UnitLists:
    """What is held against models trained again.

    Attributes:
        name: of the method that lists train rows for units.
        first: train rows of each chosen pair, best first, [pairs, k].
        prediction: those of the pairs' predictions, from a method that explains these, [pairs, k]; None: no such.
        beside: name of that method.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.unit_retraining import UnitLists
        >>> UnitLists("data_of_neurons", torch.tensor([[4, 1], [0, 4]])).first[:, :1].tolist()
        [[4], [0]]
    """

    name: str
    first: Tensor
    prediction: Tensor | None = None
    beside: str = ""


@dataclass(frozen=True)
class UnitRetraining:
    """Metric `unit_fall`: how far a unit's contribution falls without the first rows of its list, in nats.

    Of some pairs of a prediction and a unit, no unit twice: the contribution in a model trained on all rows less that
    in one trained without the first `percent` % of the split in the unit's list; both from the same initial weights,
    with rows in the order of the same seed. Mean over seeds, then over pairs; the interval resamples both. Beside it
    the same without as many random rows (`random_instances`, drawn for each seed), and without the first rows of the
    prediction itself in the list of `beside`. `unit_fall_difference` is one less another, paired; `unit_fall_ratio` the
    difference from random in standard deviations of the falls without random rows, over all pairs and seeds.

    Attributes:
        percent: of the train split that is taken away.
        units: pairs that are looked at, drawn at random.
        seeds: of the order of the rows and of the random rows.
        beside: instance method whose list of the prediction is taken away as well; null: none.

    Raises:
        UserError: nothing to take away, no unit, or fewer than two seeds.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.unit_retraining import UnitLists, UnitRetraining
        >>> worth = torch.tensor([[4.0, 0.0, 0.1, 0.2], [0.0, 4.0, 0.2, 0.1]])
        >>> def measure(rows, seed):  # a "model" in which a unit is what its rows are worth
        ...     return worth[:, rows].double().sum(1)
        >>> evaluation = UnitRetraining(percent=25, units=2, seeds=[0, 1], beside=None)
        >>> rows = evaluation.evaluate(4, UnitLists("mine", torch.tensor([[0], [1]])), measure)
        >>> [(row.metric, row.method, row.value) for row in rows][0]
        ('unit_fall', 'mine', 4.0)
    """

    requires: ClassVar[str] = "units"
    refits: ClassVar[bool] = True
    rank_by: ClassVar[RankBy] = "mean"

    percent: float = 10
    units: int = 20
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    beside: str | None = "influence_ekfac"

    def __post_init__(self) -> None:
        if not 0 < self.percent < 100 or self.units < 1:
            raise UserError(
                f"evaluation.unit_retraining.percent={self.percent:g} with units={self.units} takes nothing away, or "
                "everything; expected a percentage between 0 and 100 and at least one unit: write percent=10 units=20."
            )
        if len(self.seeds) < 2:
            raise UserError(
                f"evaluation.unit_retraining.seeds={list(self.seeds)} leaves no spread of random falls to compare "
                "with; expected two seeds at the least: write seeds=[0,1,2,3,4]."
            )

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        return missing_fit(available) or ("" if available.units else "data_of_neurons (method=[ig,data_of_neurons])")

    def require_methods(self, ranked: Sequence[str]) -> None:
        """Refuse a method `beside` that the run does not have, or that draws its scores.

        Args:
            ranked: the run's instance methods that draw nothing.

        Raises:
            UserError: naming it.
        """
        if self.beside is not None and self.beside not in ranked:
            raise UserError(
                f"evaluation.unit_retraining.beside={self.beside} is no instance method of the run that draws nothing "
                f"({', '.join(ranked) or 'it has none'}); expected one of these: add it to method, name another, or "
                "write null."
            )

    def require_unit_lists(self, name: str, top_k: int, n_train: int) -> None:
        """Refuse lists shorter than what is taken away, and to take everything away.

        Args:
            name, top_k: of a method whose lists are read.
            n_train: rows of the train split.

        Raises:
            UserError: naming the method and both numbers.
        """
        n = share_of_rows(n_train, self.percent)
        if n >= n_train:
            raise UserError(
                f"evaluation.unit_retraining takes {self.percent:g} % of {n_train} train rows away, which are all of "
                "them; expected some to train on: lower percent."
            )
        if top_k < n:
            raise UserError(
                f"evaluation.unit_retraining takes the first {self.percent:g} % of {n_train} train rows away, {n} "
                f"rows, but method.{name}.top_k={top_k} keeps fewer: raise method.{name}.top_k."
            )

    def chosen(self, units: Units) -> Tensor:
        """Numbers of the pairs that are looked at, rising: in a random order, each unit the first time it comes.

        Example:
            >>> import torch
            >>> from twinlens.attribution.bridge.units import Units
            >>> from twinlens.attribution.evaluation.ground_truth.unit_retraining import UnitRetraining
            >>> units = Units.named([["ffn", 0, 3], ["ffn", 1, 2]], torch.arange(4))  # 8 pairs of 2 units
            >>> len(UnitRetraining(units=20).chosen(units))
            2
        """
        number, found = units.numbers(), dict[int, int]()
        for pair in random_ranking(len(units), seed=0).tolist():
            found.setdefault(int(number[pair]), pair)
        return torch.tensor(list(found.values())[: self.units]).sort().values

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """On all rows, without random ones, and without those of each unit and of each unit's prediction."""
        left = n_train - share_of_rows(n_train, self.percent)
        lists = self.units * (1 if self.beside is None else 2)
        return [n_train] * len(self.seeds) + [left] * len(self.seeds) * (1 + lists)

    def fits(self, rankings: Any = None, label: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """Train rows and seed of every fit, for a plan; none: they are known when it runs."""
        return []

    def fits_of(self, n_train: int, lists: UnitLists) -> list[tuple[Tensor, int]]:
        """Train rows and seed of every fit that `evaluate` asks for."""
        found: list[tuple[Tensor, int]] = []
        for seed in self.seeds:
            found.append((torch.arange(n_train), seed))
            found += [(without(n_train, rows), seed) for removed in self._removed(n_train, lists, seed).values()
                      for rows in removed]  # fmt: skip
        return found

    def evaluate(self, n_train: int, lists: UnitLists, measure: MeasureUnits) -> list[Result]:
        """Results of one method.

        Args:
            n_train: rows of the train split.
            lists: of the chosen pairs.
            measure: fits and measures.
        """
        falls: dict[str, list[Tensor]] = {}
        whole = []
        for seed in self.seeds:
            whole.append(measure(torch.arange(n_train), seed))
            for name, removed in self._removed(n_train, lists, seed).items():
                fitted = torch.stack([measure(without(n_train, rows), seed) for rows in removed])  # [lists, pairs]
                own = fitted[0] if name == RANDOM else fitted.diagonal()
                falls.setdefault(name, []).append(whole[-1] - own)
        return self._results(lists, torch.stack(whole), {name: torch.stack(each) for name, each in falls.items()})

    def _removed(self, n_train: int, lists: UnitLists, seed: int) -> dict[str, Tensor]:
        """Rows that are taken away by whose they are, [pairs, rows]; random ones are the same for all, [1, rows]."""
        n = share_of_rows(n_train, self.percent)
        found = {lists.name: lists.first[:, :n], RANDOM: random_ranking(n_train, seed)[None, :n]}
        return found if lists.prediction is None else {**found, lists.beside: lists.prediction[:, :n]}

    def _results(self, lists: UnitLists, whole: Tensor, falls: dict[str, Tensor]) -> list[Result]:
        """Rows of results.

        Args:
            whole: contributions in the models trained on all rows, [seeds, pairs].
            falls: by whose rows are missing, [seeds, pairs].
        """
        said: dict[str, Any] = {"k": self.percent}
        found = [_mean("unit_fall", falls[lists.name], method=lists.name, better="higher", **said)]
        if lists.beside in falls:
            found.append(_mean("unit_fall", falls[lists.beside], method=lists.beside, better="higher", **said))
        control = {"method": RANDOM, "reference_group": lists.name, "control": True}
        found.append(_mean("unit_fall", falls[RANDOM], better="higher", **control, **said))
        others = [(lists.name, RANDOM), (lists.beside, RANDOM), (lists.name, lists.beside)]
        for name, other in others:
            if name in falls and other in falls:
                both = {"method": name, "reference_group": other}
                found.append(_mean("unit_fall_difference", falls[name] - falls[other], better="higher", **both, **said))
        spread = float(falls[RANDOM].std())
        found.append(
            Result("unit_fall_random_sd", spread, n=falls[RANDOM].numel(), method=RANDOM, control=True, **said)
        )
        for name in (lists.name, lists.beside):
            if name in falls and spread > 0:
                ratio = float((falls[name] - falls[RANDOM]).mean()) / spread
                found.append(Result("unit_fall_ratio", ratio, n=whole.shape[1], method=name, reference_group=RANDOM,
                                    better="higher", **said))  # fmt: skip
        return [*found, _mean("unit_contribution", whole, method=lists.name)]


def _mean(metric: str, outcomes: Tensor, **said: Any) -> Result:
    """Mean over pairs of the mean over seeds, [seeds, pairs]; the interval resamples both."""
    each = outcomes.mean(0)
    low, high = interval(resampled_means_of_runs(outcomes[None])[:, 0]) if len(each) > 1 else (None, None)
    return Result(metric, *mean_and_error(each), n=len(each), low=low, high=high, samples=outcomes, **said)
