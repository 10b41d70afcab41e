"""Joint certificate of a prediction: what it loses without its first instances and neurons, predicted and realised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.conformal import calibrated, recalibrated
from twinlens.attribution.evaluation.ground_truth.certified_changes import (
    REFIT,
    RETRAINED,
    Certified,
    Removed,
    changes_of_parts,
    correlated,
)
from twinlens.attribution.evaluation.ground_truth.convex_head import (
    Centre,
    ConvexHead,
    require_penalty,
    require_refittable,
)
from twinlens.attribution.evaluation.needs import Available, missing_fit
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error, wilson
from twinlens.attribution.evaluation.train_ranking import RankBy, random_ranking
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.targets import Targets, phi


@dataclass(frozen=True)
class Certificate:
    """Metrics `certificate_coverage`, `_width`, `_range`, `_pearson` and `_change`: removal of instances and neurons at
    once.

    For every explained example the first `removed` rows of one instance method are taken out of the train split, and
    the first `ablated` neurons of one neuron method are set to zero at the answer token. How much φ changes is
    predicted from the sums of their scores, by a line and a spread that other examples have calibrated (`calibrated`),
    and measured: with the head refitted exactly without the rows (`refit`), and for some tests with the whole model
    trained without them (`retrained`). Groups: `instances` alone, `neurons` alone, `sum` of these two changes, and both
    at once (`joint`). k and n are settings: they are fixed before anything is looked at.

    `certificate_coverage` is the share of realised changes inside their intervals (per cent, Wilson's interval),
    `certificate_width` the median width of the intervals, `certificate_range` the distance from the 5 % to the 95 %
    quantile of realised changes, `certificate_pearson` the correlation of predicted and realised change (bootstrap over
    tests) and `certificate_change` the mean realised change. Nats, but for the first and the correlation. A refitted
    test is calibrated on the other half of the tests (drawn at random); a retrained one has the line of all refitted
    tests that are not retrained, and a width that all other retrained ones calibrate.

    Attributes:
        instances, neurons: methods of the run; None: the first of its kind that is no control.
        removed, ablated: k and n.
        level: share of changes that intervals should hold.
        damping, centre: of the refit, as of `loo`.
        retrained: random tests that the model is trained anew for; 0: none.
        seed: of those fits.

    Raises:
        UserError: nothing to take away, a level that is none, a penalty of nothing, too few tests to train for.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.certificate import Certificate
        >>> from twinlens.attribution.evaluation.ground_truth.certified_changes import Removed
        >>> from twinlens.attribution.example_models import example_head_inputs
        >>> train, test = example_head_inputs()
        >>> one = Certificate(removed=1, ablated=1, level=0.5)
        >>> n = len(test)
        >>> taken = Removed(torch.zeros(n, 1, dtype=torch.int64), torch.ones(n), torch.zeros(n))
        >>> found = one.refitted((train, test), test.features, taken, 2**20)  # no neuron changes anything here
        >>> [(each.part, float(each.realised.abs().sum()) > 0) for each in found]
        [('instances', True), ('neurons', False), ('sum', True), ('joint', True)]
    """

    papers: ClassVar[tuple[str, ...]] = ("vovk2015cross", "barber2021jackknife")
    requires: ClassVar[str] = "certificate"
    rank_by: ClassVar[RankBy] = "mean"

    instances: str | None = None
    neurons: str | None = None
    removed: int = 10
    ablated: int = 10
    level: float = 0.9
    damping: float = 0.1
    centre: Centre = "trained"
    retrained: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.removed < 1 or self.ablated < 1:
            raise UserError(
                f"evaluation.certificate.removed={self.removed} ablated={self.ablated} takes nothing away on one side; "
                "expected numbers from 1 on: write removed=10 ablated=10."
            )
        if not 0 < self.level < 1:
            raise UserError(
                f"evaluation.certificate.level={self.level:g}, expected a share between 0 and 1 of the changes that "
                "intervals hold: write 0.9."
            )
        require_penalty(self.damping, "certificate")
        if self.retrained and self.retrained < self.least_tests + 1:
            raise UserError(
                f"evaluation.certificate.retrained={self.retrained} leaves {max(0, self.retrained - 1)} others to "
                f"calibrate an interval for {self.level:g} of the changes; expected {self.least_tests + 1} at least, "
                "or 0 for none: raise it."
            )

    @property
    def refits(self) -> bool:
        """Whether it trains the model again."""
        return self.retrained > 0

    @property
    def least_tests(self) -> int:
        """Examples that calibrate an interval at least: with fewer no residual is rare enough, or no line is found."""
        return max(3, ceil(self.level / (1 - self.level) - 1e-9))  # 0.9 / 0.1 is a little more than 9

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        if self.refits and (lacking := missing_fit(available)):
            return lacking
        if not available.instance:
            return "at least one instance method (e.g. method=influence)"
        return "" if available.neuron else "at least one neuron method (e.g. method=ig)"

    def chosen(self, methods: Mapping[str, Any]) -> tuple[str, str]:
        """Names of the instance method and of the neuron method.

        Args:
            methods: all of the run, by name.

        Raises:
            UserError: a named method that the run does not have or that is of another kind.
        """
        found: list[str] = []
        for setting, kind in (("instances", "instance"), ("neurons", "neuron")):
            named = getattr(self, setting)
            own = [name for name, method in methods.items() if method.kind == kind]
            if named is not None and named not in own:
                raise UserError(
                    f"evaluation.certificate.{setting}={named} is no {kind} method of the run, which has "
                    f"{', '.join(own) or 'none'}; expected one of these: name it, or write null for the first."
                )
            first = [name for name in own if not methods[name].is_control] or own
            found.append(named or (first[0] if first else ""))
        return found[0], found[1]

    def require_lists(self, methods: Mapping[str, Any]) -> None:
        """Refuse methods that the run does not have, and lists that are shorter than what is taken away.

        Args:
            methods: all of the run, by name.

        Raises:
            UserError: naming the method and both numbers.
        """
        for name, count in zip(self.chosen(methods), (self.removed, self.ablated), strict=True):
            if name and methods[name].top_k < count:
                raise UserError(
                    f"evaluation=certificate takes the first {count} of a list away, but method.{name}.top_k="
                    f"{methods[name].top_k} keeps fewer: raise method.{name}.top_k."
                )

    def require_one_target(self, instance: str, neuron: str) -> None:
        """Refuse lenses that explain different outputs, whose scores are not of one prediction.

        Args:
            instance, neuron: what either lens explains, in words.

        Raises:
            UserError: naming both.
        """
        if instance != neuron:
            raise UserError(
                f"evaluation=certificate adds up what both lenses say of one output, and the instance lens explains "
                f"{instance}, the neuron lens {neuron}; expected the same: set explain={neuron}, or leave certificate "
                "out."
            )

    def require_rows(self, n_train: int) -> None:
        """Refuse a train split that nothing would be left of.

        Raises:
            UserError: naming both numbers.
        """
        if self.removed >= n_train:
            raise UserError(
                f"evaluation.certificate.removed={self.removed} leaves nothing of {n_train} train rows; expected "
                "fewer: lower it."
            )

    def require_head(self, head: nn.Module, sequences: int) -> None:
        """Refuse a head that cannot be refitted exactly, see `require_refittable`."""
        require_refittable(head, sequences, "certificate")

    def lacking(self, tests: int) -> str:
        """What the explained split lacks; empty where nothing is missing."""
        if tests < 2 * self.least_tests:
            return f"{2 * self.least_tests} explained examples, half of which calibrate the others (here {tests})"
        return "" if tests >= self.retrained else f"{self.retrained} explained examples to train for (here {tests})"

    def fits(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """None: which rows a fit goes without is known when it runs."""
        return []

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """Train rows of every fit: all, and without those of each test."""
        return [n_train, *[n_train - self.removed] * self.retrained] if self.retrained else []

    def tests_to_retrain(self, tests: int) -> Tensor:
        """Places of the tests that the model is trained anew for, in order, [retrained]."""
        return random_ranking(tests, seed=0)[: self.retrained].sort().values

    def refitted(
        self, head: tuple[HeadInputs, HeadInputs], ablated: Tensor, taken: Removed, memory_budget: int
    ) -> list[Certified]:
        """All parts with the head fitted to its lowest loss, with all rows and without each test's own.

        Args:
            head: of the train split with gold labels, and of the tests with what is explained.
            ablated: head inputs of the tests with their first neurons at zero, [tests, hidden].
            taken: what is taken away.
            memory_budget: bytes of working memory.

        Raises:
            UserError: a head that is not linear, or questions of several sequences.
        """
        train, test = head
        self.require_head(train.head, train.sequences)
        fitted = ConvexHead.of(train.head, train.features, train.labels, self.damping, self.centre, "certificate")
        targets = Targets(test.labels, test.against, test.fold)
        whole = fitted.solve()
        without = fitted.without(whole, taken.rows, memory_budget)

        def measured(weights: Tensor, features: Tensor) -> Tensor:
            features = features.double()
            if weights.shape[-1] > features.shape[1]:
                features = torch.cat([features, features.new_ones(len(features), 1)], 1)
            scores = torch.einsum("tci,ti->tc", weights.expand(len(features), -1, -1), features)
            return phi(scores.log_softmax(-1), targets)

        each = [measured(weights, features) for features in (test.features, ablated) for weights in (whole, without)]
        before, instances, neurons, joint = each
        halves = random_ranking(len(test), seed=0) % 2
        everyone = torch.arange(len(test))
        return [
            Certified(part, REFIT, everyone, calibrated(known, halves, self.level, bound), known)
            for part, known, bound in changes_of_parts(before, torch.stack([instances, neurons, joint]), taken, targets)
        ]

    def of_retrained(
        self, outcomes: Tensor, taken: Removed, tests: Tensor, targets: Targets, refitted: list[Certified]
    ) -> list[Certified]:
        """All parts with the whole model trained again, by the lines of all tests but these with the head refitted.

        Args:
            outcomes: φ of the tests under the model of all rows, the one without their rows, the first without their
                neurons, and the second without them, [4, retrained], nats.
            taken: what is taken away of all tests.
            tests: places of these among all tests, [retrained].
            targets: of these tests.
            refitted: all parts of all tests.
        """
        others = torch.ones(len(taken.rows), dtype=torch.bool)
        others[tests] = False
        lines = {one.part: one.known.at(others) for one in refitted}
        return [
            Certified(part, RETRAINED, tests, recalibrated(known, lines[part], self.level, bound), known)
            for part, known, bound in changes_of_parts(outcomes[0], outcomes[1:], taken.at(tests), targets)
        ]

    def evaluate(self, certified: list[Certified], named: tuple[str, str]) -> list[Result]:
        """Five results of every part and kind of removal.

        Args:
            certified: of `refitted` and `of_retrained`.
            named: the instance method and the neuron method.
        """
        found = []
        for one in certified:
            realised, intervals, n = one.realised, one.intervals, len(one.realised)
            said: dict[str, Any] = {
                "n": n, "k": self.removed, "method": "+".join(named), "group": one.part, "reference_group": one.truth,
                "variant": self.variant,
            }  # fmt: skip
            share = float(intervals.hold(realised).double().mean())
            low, high = wilson(share, n, 100)
            error = 100 * (share * (1 - share) / n) ** 0.5
            found.append(Result("certificate_coverage", 100 * share, error, low=low, high=high, **said))
            width = float((intervals.high - intervals.low).median())
            found.append(Result("certificate_width", width, better="lower", **said))
            ends = torch.quantile(realised, torch.tensor([0.05, 0.95], dtype=torch.float64))
            found.append(Result("certificate_range", float(ends[1] - ends[0]), **said))
            value, low, high = correlated(intervals.predicted, realised)
            found.append(Result("certificate_pearson", value, low=low, high=high, better="higher", **said))
            found.append(Result("certificate_change", *mean_and_error(realised), samples=realised, **said))
        return found

    @property
    def variant(self) -> str:
        """Settings other than the default, as results.csv states them."""
        said = [] if self.ablated == 10 else [f"ablated={self.ablated}"]
        for setting, usual in (("level", 0.9), ("damping", 0.1), ("centre", "trained"), ("seed", 0)):
            value = getattr(self, setting)
            if value != usual:
                said.append(f"{setting}={value:g}" if isinstance(value, float) else f"{setting}={value}")
        return ";".join(said)
