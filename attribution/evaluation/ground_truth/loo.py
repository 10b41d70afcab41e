"""Leave one out: the head refitted exactly without each train row, against the scores of these rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.convex_head import (
    Centre,
    ConvexHead,
    require_penalty,
    require_refittable,
)
from twinlens.attribution.evaluation.ground_truth.correlation import pearson, spearman
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, ScoredMethod, TruthInputs
from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.train_ranking import random_ranking
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.targets import Targets, phi

NUMBERS_AT_ONCE = 4_000_000
"""Scores of train rows that are in memory at a time."""


@dataclass(frozen=True)
class LeaveOneOut(GroundTruth):
    """Metrics `loo_pearson` and `loo_spearman`: scores of train rows against what happens without them.

    The features stay as they are, and the linear head is fitted to the lowest Σ loss / n + λ/2 ‖W − W₀‖², with all rows
    and without each of them in turn (exactly, by Newton steps). What a row is worth to a test is φ with all rows less φ
    without it, in nats: positive where the row raises what is explained. For every test: the correlation over rows of
    that with the method's scores; mean over tests, for a method that draws over its seeds first. Standard error and
    bootstrap interval over tests. The truth has no noise, but it is that of the head alone.

    Attributes:
        damping: λ as a multiple of the mean eigenvalue of the head's Hessian, as `damping` of `influence`.
        centre: W₀: the `trained` weights, so that the refit stays about the model that is explained, or `zero`.
        rows: random train rows that are left out in turn; None: all.

    Raises:
        UserError: a penalty of nothing, or too few rows for a correlation.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.loo import LeaveOneOut
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> scorer = Influence(damping=1.0).prepare(train, BUDGET)
        >>> scores = scorer.scores(scorer.query(test, torch.arange(len(test))), 0, len(train))
        >>> inputs = TruthInputs(len(train), {"influence": HeldScores(scores[None])}, torch.arange(len(test)),
        ...                      measure=lambda rows, seed: torch.zeros(len(test)), head=(train, test))
        >>> [(row.metric, round(row.value, 2)) for row in LeaveOneOut(damping=1.0).evaluate(inputs)]
        [('loo_pearson', 0.87), ('loo_spearman', 1.0)]
    """

    reads_all_scores: ClassVar[bool] = True

    damping: float = 0.1
    centre: Centre = "trained"
    rows: int | None = None

    def __post_init__(self) -> None:
        require_penalty(self.damping, "loo")
        if self.rows is not None and self.rows < 3:
            raise UserError(
                f"evaluation.loo.rows={self.rows} are too few for a correlation; expected at least 3, or null for all "
                "train rows: raise it."
            )

    def require_rows(self, n_train: int) -> None:
        """Refuse a train split with fewer rows than a correlation needs.

        Raises:
            UserError: naming its rows.
        """
        if n_train < 3:
            raise UserError(
                f"evaluation=loo correlates over train rows, and the split has {n_train}; expected at least 3: raise "
                "data.limit.train."
            )

    def require_head(self, head: nn.Module, sequences: int) -> None:
        """Refuse a head that cannot be refitted exactly, see `require_refittable`."""
        require_refittable(head, sequences, "loo")

    def evaluate(self, inputs: TruthInputs) -> list[Result]:
        """Two results for each method.

        Raises:
            UserError: a head that is not linear, or questions of several sequences.
        """
        assert inputs.head is not None, "instance methods of classes have head inputs"
        train, test = inputs.head
        self.require_head(train.head, train.sequences)
        chosen = torch.arange(inputs.n_train)
        if self.rows is not None:
            chosen = random_ranking(inputs.n_train, seed=0)[: self.rows].sort().values
        truth = self.changes(train, test, chosen, inputs.memory_budget)
        found = []
        for name, method in inputs.methods.items():
            of_seeds = [self._correlations(method, seed, chosen, truth) for seed in range(method.n_seeds)]
            for metric, place in (("loo_pearson", 0), ("loo_spearman", 1)):
                each = torch.stack([pair[place] for pair in of_seeds]).mean(0)
                low, high = ends(each[None], lambda means: means[:, 0])
                found.append(
                    Result(
                        metric, *mean_and_error(each), n=len(each), k=len(chosen), method=name, better="higher",
                        control=method.is_control, low=low, high=high, samples=each, variant=self.variant,
                    )
                )  # fmt: skip
        return found

    @property
    def variant(self) -> str:
        """Settings other than the default, as results.csv states them."""
        said = [f"damping={self.damping:g}"] if self.damping != 0.1 else []
        return ";".join([*said, *([f"centre={self.centre}"] if self.centre != "trained" else [])])

    def changes(self, train: HeadInputs, test: HeadInputs, rows: Tensor, memory_budget: int) -> Tensor:
        """φ of each test with all train rows less φ without each of some, [tests, rows], float64, nats.

        Args:
            train, test: head inputs; labels of the tests are what is explained.
            rows: that are left out in turn, [rows].
            memory_budget: bytes of working memory.
        """
        head = ConvexHead.of(train.head, train.features, train.labels, self.damping, self.centre)
        features = test.features.double()
        if head.inputs.shape[1] > features.shape[1]:
            features = torch.cat([features, features.new_ones(len(features), 1)], 1)
        targets = Targets(test.labels, test.against, test.fold)

        def measured(weights: Tensor) -> Tensor:  # [..., classes, inputs] → [..., tests]
            return phi((features @ weights.transpose(-1, -2)).log_softmax(-1), targets)

        whole = head.solve()
        size = max(1, memory_budget // (4 * 8 * (len(features) * len(whole) + whole.numel())))
        parts = [
            measured(head.without(whole, rows[start : start + size, None], memory_budget))
            for start in range(0, len(rows), size)
        ]
        return measured(whole)[:, None] - torch.cat(parts).T

    def _correlations(self, method: ScoredMethod, seed: int, rows: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Pearson's and Spearman's of every test, [tests] each."""
        found: list[tuple[Tensor, Tensor]] = []
        size = max(1, NUMBERS_AT_ONCE // int(rows.max() + 1))
        for start in range(0, len(truth), size):
            stop = min(start + size, len(truth))
            scores = method.dense(seed, start, stop)[:, rows].double()
            found.append((pearson(scores, truth[start:stop]), spearman(scores, truth[start:stop])))
        return torch.cat([pair[0] for pair in found]), torch.cat([pair[1] for pair in found])
