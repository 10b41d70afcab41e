"""Linear datamodelling score: sums of scores over random subsets against models that were trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.correlation import resampled_spearman, spearman
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, ScoredMethod, TruthInputs
from twinlens.attribution.evaluation.resampling import interval
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.train_ranking import random_ranking, share_of_rows

OTHER_SEED = "other_seed"
"""Name under which models of the same subsets with another seed stand in results."""
FEWEST = 5
"""Subsets that an interval needs at least."""
NUMBERS_AT_ONCE = 4_000_000
"""Scores of train rows that are in memory at a time."""


@dataclass(frozen=True)
class LinearDatamodelling(GroundTruth):
    """Metric `lds` (Park et al. 2023): how well sums of scores predict what models trained on subsets say.

    For every test: Spearman's correlation, over random subsets S of the train split, of Σ_{i∈S} score_i with φ of a
    model trained on S. The value is the mean over tests, for several seeds of the fits the mean over them; `k` is the
    number of subsets. Standard error and 95 % interval by a bootstrap over subsets and tests. φ is what the run
    explains, in nats. With two seeds or more, `other_seed` has the correlation of the models of one seed with those of
    another: a method that reaches it predicts a model as well as training it again does.

    Attributes:
        subsets: how many random subsets.
        percent: size of a subset, per cent of the train split.
        first_draw: number of the first subset's draw; subset s is the first part of `random_ranking` s.
        seeds: of the fits; every subset is fitted under each of them.

    Raises:
        UserError: too few subsets for an interval, no seed, or subsets that are empty or the whole split.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.lds import LinearDatamodelling
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> worth = torch.tensor([[3.0, -1.0, 0.5, 2.0, -2.0, 0.0], [0.0, 1.0, 4.0, -1.0, 2.0, -3.0]])
        >>> def measure(rows, seed):  # a "model" whose φ is the sum of what its rows are worth
        ...     return worth[:, rows].sum(1)
        >>> methods = {"exact": HeldScores(worth[None]), "opposite": HeldScores(-worth[None])}
        >>> inputs = TruthInputs(6, methods, torch.arange(2), measure)
        >>> [(row.method, round(row.value, 4)) for row in LinearDatamodelling(subsets=8).evaluate(inputs)]
        [('exact', 1.0), ('opposite', -1.0)]
    """

    papers: ClassVar[tuple[str, ...]] = ("park2023trak",)
    reads_all_scores: ClassVar[bool] = True
    refits: ClassVar[bool] = True

    subsets: int = 40
    percent: float = 50
    first_draw: int = 0
    seeds: Sequence[int] = (0,)

    def __post_init__(self) -> None:
        if self.subsets < FEWEST:
            raise UserError(
                f"evaluation.lds.subsets={self.subsets} are fewer than an interval needs; expected at least {FEWEST}: "
                "raise it, 40 tell methods apart."
            )
        if not 0 < self.percent < 100:
            raise UserError(
                f"evaluation.lds.percent={self.percent:g} leaves no part of the train split in or out; expected a "
                "number between 0 and 100: write 50."
            )
        if not self.seeds:
            raise UserError("evaluation.lds.seeds=[] fits nothing, expected at least one seed: write [0].")

    def require_rows(self, n_train: int) -> None:
        """Refuse a train split of which a subset is empty or everything.

        Raises:
            UserError: naming its rows.
        """
        if share_of_rows(n_train, self.percent) >= n_train or n_train < 4:
            raise UserError(
                f"evaluation=lds takes {self.percent:g} % of a train split of {n_train} rows, which leaves no two "
                "different subsets; expected more rows: raise data.limit.train."
            )

    def rows_of_subsets(self, n_train: int) -> list[Tensor]:
        """Train rows of every subset.

        Raises:
            UserError: a train split of which a subset is empty or everything.
        """
        self.require_rows(n_train)
        size = share_of_rows(n_train, self.percent)
        return [random_ranking(n_train, self.first_draw + draw)[:size] for draw in range(self.subsets)]

    def fits(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """Every subset under every seed, whatever the rankings."""
        n_train = len(next(iter(rankings.values())))
        return [(rows, seed) for seed in self.seeds for rows in self.rows_of_subsets(n_train)]

    def expected_fits(self, n_train: int, n_methods: int) -> list[int]:
        """As many as there are subsets and seeds."""
        return [share_of_rows(n_train, self.percent)] * (self.subsets * len(self.seeds))

    def evaluate(self, inputs: TruthInputs) -> list[Result]:
        """A result for each method, and with several seeds one for their models among each other."""
        subsets = self.rows_of_subsets(inputs.n_train)
        measured = torch.stack(
            [torch.stack([inputs.measure(rows.tolist(), seed) for rows in subsets], 1) for seed in self.seeds]
        )  # [seeds, tests, subsets]
        taken = torch.zeros(inputs.n_train, self.subsets, dtype=torch.float64)
        for number, rows in enumerate(subsets):
            taken[rows, number] = 1
        found = []
        for name, method in inputs.methods.items():
            predicted = [
                self._predicted(method, seed, taken, inputs.tests) for seed in range(method.n_seeds)
            ]  # a method that draws: the mean over its seeds
            pairs = [(sums, truth) for sums in predicted for truth in measured]
            found.append(self._result(pairs, name, method.is_control))
        among = list(combinations(measured, 2))
        return [*found, self._result(among, OTHER_SEED, True)] if among else found

    def _predicted(self, method: ScoredMethod, seed: int, taken: Tensor, tests: int) -> Tensor:
        """Σ of the scores of every subset's rows, [tests, subsets], float64."""
        step = max(1, NUMBERS_AT_ONCE // len(taken))
        parts = [method.dense(seed, start, min(start + step, tests)).double() for start in range(0, tests, step)]
        return torch.cat([part @ taken for part in parts])

    def _result(self, pairs: Sequence[tuple[Tensor, Tensor]], method: str, control: bool) -> Result:
        value = float(torch.stack([spearman(x, y).mean() for x, y in pairs]).mean())
        draws = torch.stack([resampled_spearman(x, y) for x, y in pairs]).mean(0)
        low, high = interval(draws)
        return Result(
            "lds", value, float(draws.std()), n=len(pairs[0][0]), k=self.subsets, method=method, better="higher",
            control=control, low=low, high=high, variant="" if self.percent == 50 else f"percent={self.percent:g}",
        )  # fmt: skip
