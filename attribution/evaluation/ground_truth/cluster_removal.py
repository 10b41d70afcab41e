"""Removal of a cluster: models trained without the documents that carry most for queries asked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, TruthInputs, require_ranked
from twinlens.attribution.evaluation.needs import Available, missing_rankings
from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.subsets import RANDOM, without
from twinlens.attribution.evaluation.train_ranking import random_ranking


@dataclass(frozen=True)
class AskedTogether:
    """A group of tests and what a method says carries them.

    Attributes:
        name: of the group.
        tests: places of its tests, [tests].
        cluster: train rows of its first cluster, rising, [rows]; empty where no row speaks for the group.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.cluster_removal import AskedTogether
        >>> group = AskedTogether("greetings", tests=torch.tensor([0, 3]), cluster=torch.tensor([17]))
        >>> group.name, len(group.tests)
        ('greetings', 2)
    """

    name: str
    tests: Tensor
    cluster: Tensor


@dataclass(frozen=True)
class ClusterRemoval(GroundTruth):
    """Metric `cluster_removal`: how far φ falls when the model is trained without the first cluster of a group's list.

    One model for each group (`group`) and method: without the train rows of the cluster, `k` of them, under the same
    seed as one on all rows. The fall is the mean over the group's tests, in nats, with standard error and bootstrap
    interval over them, mean over seeds. Beside every method stands the control, rows of `random_instances` with the
    method as `reference_group`: as many random rows that are not of the cluster.

    Attributes:
        most: groups that are looked at, those with the most tests.
        seeds: of the fits and of the random rows.
        methods: names of those whose clusters are removed; None: all that draw nothing.

    Raises:
        UserError: no group, or no seed.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.cluster_removal import AskedTogether, ClusterRemoval
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> worth = torch.tensor([[3.0, 0.0, 0.5, 2.0], [1.0, 0.0, 0.0, 2.0]])
        >>> def measure(rows, seed):  # a "model" whose φ is the sum of what its rows are worth
        ...     return worth[:, rows].double().sum(1)
        >>> group = AskedTogether("greetings", torch.tensor([0, 1]), torch.tensor([0, 3]))
        >>> inputs = TruthInputs(4, {"exact": HeldScores(worth[None])}, torch.arange(2), measure,
        ...                      groups={"exact": [group]})
        >>> [(row.method, row.group, row.k, row.value) for row in ClusterRemoval(seeds=[0]).evaluate(inputs)]
        [('exact', 'greetings', 2, 4.0), ('random_instances', 'greetings', 2, 0.25)]
    """

    refits: ClassVar[bool] = True

    most: int = 3
    seeds: Sequence[int] = (0,)
    methods: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.most < 1 or not self.seeds:
            raise UserError(
                f"evaluation.cluster_removal.most={self.most} with seeds={list(self.seeds)} fits nothing; expected at "
                "least one group and one seed: write most=3 seeds=[0]."
            )

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        if not available.groups:
            return "queries that are asked together (data=texts data.group=COLUMN)"
        return super().missing(available) or missing_rankings(available)

    def require_methods(self, ranked: Sequence[str]) -> None:
        """Refuse named methods that the run does not have, or that draw their scores.

        Args:
            ranked: the run's instance methods that draw nothing.

        Raises:
            UserError: naming the first of them.
        """
        require_ranked("cluster_removal", self.methods, ranked)

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """Every cluster and its control, and one on all rows, for each seed; how large clusters are is not known."""
        n_methods = n_methods if self.methods is None else len(self.methods)
        return [n_train] * (len(self.seeds) * (1 + 2 * n_methods * self.most))

    def lacking(self, inputs: TruthInputs) -> str:
        """Train rows that speak for a group."""
        return "" if any(self._asked(inputs).values()) else "documents with a positive score for a group of queries"

    def fits_of(self, inputs: TruthInputs) -> list[tuple[Tensor, int]]:
        """On all rows, and without every cluster and as many random rows, under each seed."""
        found = [(torch.arange(inputs.n_train), seed) for seed in self.seeds]
        for group in (group for groups in self._asked(inputs).values() for group in groups):
            drawn = self._drawn(inputs.n_train, group)
            found += [
                (without(inputs.n_train, rows), seed) for seed in self.seeds for rows in (group.cluster, drawn[seed])
            ]
        return found

    def evaluate(self, inputs: TruthInputs) -> list[Result]:
        """Results of every method and group, with its control beside it."""
        whole = {seed: inputs.measure(range(inputs.n_train), seed) for seed in self.seeds}
        found = []
        for name, groups in self._asked(inputs).items():
            for group in groups:
                drawn = self._drawn(inputs.n_train, group)
                cases: list[tuple[dict[str, Any], Mapping[int, Tensor]]] = [
                    ({"method": name}, dict.fromkeys(self.seeds, group.cluster)),
                    ({"method": RANDOM, "control": True, "reference_group": name}, drawn),
                ]
                for said, removed in cases:
                    falls = torch.stack(
                        [self._fall(inputs, whole[seed], removed[seed], seed, group.tests) for seed in self.seeds]
                    )
                    found.append(_mean(falls, len(group.cluster), group.name, said))
        return found

    def _asked(self, inputs: TruthInputs) -> dict[str, list[AskedTogether]]:
        """The largest groups of each method, those with a cluster that leaves rows to train on."""
        rankable = inputs.rankable(self.methods)
        wanted = {name: groups for name, groups in inputs.groups.items() if name in rankable}
        return {
            name: [
                group
                for group in sorted(groups, key=lambda group: -len(group.tests))[: self.most]
                if 0 < len(group.cluster) < inputs.n_train
            ]
            for name, groups in wanted.items()
        }

    def _drawn(self, n_train: int, group: AskedTogether) -> dict[int, Tensor]:
        """As many random rows outside a group's cluster, by seed."""
        others = without(n_train, group.cluster)
        return {seed: others[random_ranking(len(others), seed)[: len(group.cluster)]] for seed in self.seeds}

    def _fall(self, inputs: TruthInputs, whole: Tensor, rows: Tensor, seed: int, tests: Tensor) -> Tensor:
        return (whole - inputs.measure(without(inputs.n_train, rows).tolist(), seed))[tests]


def _mean(falls: Tensor, k: int, group: str, said: Mapping[str, Any]) -> Result:
    """Mean over a group's tests of the mean over seeds, [seeds, tests]."""
    each = falls.mean(0)
    low, high = ends(each[None], lambda means: means[:, 0])
    return Result(
        "cluster_removal", *mean_and_error(each), n=len(each), k=k, group=group, better="higher", low=low, high=high,
        samples=falls, **said,
    )  # fmt: skip
