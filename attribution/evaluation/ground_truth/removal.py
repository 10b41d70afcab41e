"""Removal: models trained without the first rows of a list, against as many random rows of the same labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.correlation import spearman
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, TruthInputs, require_ranked
from twinlens.attribution.evaluation.needs import Available, missing_rankings
from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.subsets import RANDOM, SAME_LABELS, same_labels, without
from twinlens.attribution.evaluation.train_ranking import random_ranking


@dataclass(frozen=True)
class _Case:
    """Rows that are taken away for some tests.

    Attributes:
        rows: train rows, [k].
        tests: places of the tests that look at them, [tests].
        predicted: Σ of their scores for each of these tests, [tests]; None: unknown.
    """

    rows: Tensor
    tests: Tensor
    predicted: Tensor | None = None


@dataclass(frozen=True)
class Removal(GroundTruth):
    """Metric `removal`: how far φ falls when the model is trained without the first k rows of a list, in nats.

    Group `each`: for every one of some tests, a model without the first k of its own list; mean over these tests.
    Group `together`: one model without the first k of the ranking over all explained tests; mean over all of them.
    The fall is φ of a model trained on all rows less φ of the one trained without, under the same seed, mean over
    seeds; standard error and bootstrap interval over tests. Beside every method stands the control, rows of
    `random_instances` with the method as `reference_group`: as many random rows of every label. `removal_predicted` is
    the sum of the removed rows' scores, in the method's unit, and `removal_spearman` the correlation of that with the
    fall over the tests of group `each`, from five tests on.

    Attributes:
        removed: k, numbers of rows that are taken away.
        tests: random explained examples of group `each`; 0: none.
        together: whether group `together` is measured.
        seeds: of the fits and of the random rows.
        methods: names of those whose lists are removed; None: all that draw nothing.

    Raises:
        UserError: nothing to remove, or no seed.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.removal import Removal
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> worth = torch.tensor([[3.0, -1.0, 0.5, 2.0], [0.0, 1.0, 4.0, -1.0]])
        >>> def measure(rows, seed):  # a "model" whose φ is the sum of what its rows are worth
        ...     return worth[:, rows].double().sum(1)
        >>> methods, label = {"exact": HeldScores(worth[None])}, torch.tensor([0, 1, 0, 1])
        >>> inputs = TruthInputs(4, methods, torch.arange(2), measure, train_label=label)
        >>> rows = Removal(removed=[1], tests=2, seeds=[0]).evaluate(inputs)
        >>> [(row.method, row.group, row.value) for row in rows if row.metric == "removal"][0]  # rows 0 and 2
        ('exact', 'each', 3.5)
    """

    refits: ClassVar[bool] = True

    removed: Sequence[int] = (10,)
    tests: int = 5
    together: bool = True
    seeds: Sequence[int] = (0,)
    methods: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not self.removed or any(k < 1 for k in self.removed) or self.tests < 0 or not (self.tests or self.together):
            raise UserError(
                f"evaluation.removal.removed={list(self.removed)} with tests={self.tests} and together="
                f"{str(self.together).lower()} takes nothing away; expected numbers of rows from 1 on, and tests or "
                "together: write removed=[10] tests=5."
            )
        if not self.seeds:
            raise UserError("evaluation.removal.seeds=[] fits nothing, expected at least one seed: write [0].")

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        return super().missing(available) or missing_rankings(available)

    def require_length(self, name: str, top_k: int) -> None:
        """Refuse a method whose lists are shorter than what is removed.

        Raises:
            UserError: naming the method and both numbers.
        """
        if top_k < max(self.removed) and (self.methods is None or name in self.methods):
            raise UserError(
                f"evaluation.removal takes the first {max(self.removed)} train rows of a list away, but method.{name}."
                f"top_k={top_k} keeps fewer: raise method.{name}.top_k."
            )

    def require_methods(self, ranked: Sequence[str]) -> None:
        """Refuse named methods that the run does not have, or that draw their scores.

        Args:
            ranked: the run's instance methods that draw nothing.

        Raises:
            UserError: naming the first of them.
        """
        require_ranked("removal", self.methods, ranked)

    def require_rows(self, n_train: int) -> None:
        """Refuse a train split that nothing would be left of.

        Raises:
            UserError: naming both numbers.
        """
        if max(self.removed) >= n_train:
            raise UserError(
                f"evaluation.removal.removed={list(self.removed)} leaves nothing of {n_train} train rows; "
                "expected fewer: lower it."
            )

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """Every removal and its control, and one on all rows, for each seed."""
        n_methods = n_methods if self.methods is None else len(self.methods)
        cells = 2 * n_methods * (self.tests + self.together)
        return [n_train] * len(self.seeds) + [n_train - k for k in self.removed] * (cells * len(self.seeds))

    def fits_of(self, inputs: TruthInputs) -> list[tuple[Tensor, int]]:
        """On all rows, and without those of every case and of its control, under each seed."""
        self.require_rows(inputs.n_train)
        found = [(torch.arange(inputs.n_train), seed) for seed in self.seeds]
        labels = [None] if inputs.train_label is None else [None, inputs.train_label]
        for name in inputs.rankable(self.methods):
            for k in self.removed:
                for _, cases in self._cases(inputs, name, k):
                    for label, seed in product(labels, self.seeds):
                        found += [(rows, seed) for rows in _left(inputs.n_train, cases, seed, label)]
        return found

    def evaluate(self, inputs: TruthInputs) -> list[Result]:
        """Results of every method, with its control beside it.

        Raises:
            UserError: a train split that nothing would be left of.
        """
        self.require_rows(inputs.n_train)
        whole = {seed: inputs.measure(range(inputs.n_train), seed) for seed in self.seeds}
        found = []
        for name in inputs.rankable(self.methods):
            for k in self.removed:
                for group, cases in self._cases(inputs, name, k):
                    found += self._results(inputs, name, group, k, cases, whole)
        return found

    def _cases(self, inputs: TruthInputs, name: str, k: int) -> Iterator[tuple[str, list[_Case]]]:
        method = inputs.methods[name]
        if self.tests:
            rows, scores = method.first(0, k)
            chosen = random_ranking(inputs.tests, seed=0)[: self.tests].sort().values
            sums = scores.double().sum(1)
            yield "each", [_Case(rows[test], torch.tensor([test]), sums[test : test + 1]) for test in chosen.tolist()]
        if self.together:
            yield "together", [_Case(method.ranking()[:k], torch.arange(inputs.tests))]

    def _results(
        self, inputs: TruthInputs, name: str, group: str, k: int, cases: Sequence[_Case], whole: dict[int, Tensor]
    ) -> list[Result]:
        said: dict[str, Any] = {"k": k, "group": group}
        falls = torch.stack([self._falls(inputs, cases, whole, seed, None) for seed in self.seeds])  # [seeds, tests]
        found = [_mean("removal", falls, method=name, better="higher", **said)]
        if inputs.train_label is not None:
            drawn = [self._falls(inputs, cases, whole, seed, inputs.train_label) for seed in self.seeds]
            found.append(
                _mean("removal", torch.stack(drawn), method=RANDOM, better="higher", control=True,
                      reference_group=name, variant=SAME_LABELS if inputs.labelled else "", **said)
            )  # fmt: skip
        known = [case.predicted for case in cases if case.predicted is not None]
        if known:
            predicted = torch.cat(known)
            found.append(Result("removal_predicted", *mean_and_error(predicted), n=len(predicted), method=name, **said))
            if len(predicted) >= 5:
                value = float(spearman(predicted, falls.mean(0)))
                found.append(
                    Result("removal_spearman", value, n=len(predicted), method=name, better="higher", **said)
                )  # fmt: skip
        return found

    def _falls(
        self, inputs: TruthInputs, cases: Sequence[_Case], whole: dict[int, Tensor], seed: int, label: Tensor | None
    ) -> Tensor:
        """Fall of φ for the tests of all cases, [tests]; with labels, without random rows of the same ones instead."""
        left = _left(inputs.n_train, cases, seed, label)
        fitted = [inputs.measure(rows.tolist(), seed) for rows in left]
        return torch.cat([(whole[seed] - phi)[case.tests] for case, phi in zip(cases, fitted, strict=True)])


def _left(n_train: int, cases: Sequence[_Case], seed: int, label: Tensor | None) -> list[Tensor]:
    """Train rows without those of each case; with labels, without random rows of the same ones instead."""
    found = []
    for number, case in enumerate(cases):
        rows = case.rows if label is None else same_labels(case.rows, label, seed * len(cases) + number)
        found.append(without(n_train, rows))
    return found


def _mean(metric: str, outcomes: Tensor, **said: Any) -> Result:
    """Mean over tests of the mean over seeds, [seeds, tests]."""
    each = outcomes.mean(0)
    low, high = ends(each[None], lambda means: means[:, 0])
    return Result(metric, *mean_and_error(each), n=len(each), low=low, high=high, samples=outcomes, **said)
