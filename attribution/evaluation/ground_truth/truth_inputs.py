"""Inputs of ground truth: what an evaluation asks of a run, and the base of such evaluations; extend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.needs import Available, missing_fit
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.train_ranking import RankBy
from twinlens.attribution.instance.inputs import HeadInputs

Measure = Callable[[Sequence[int], int], Tensor]
"""(train rows, seed) → φ of every explained example [tests] under a model that was fitted on these rows."""


class ScoredMethod(Protocol):
    """Scores of one instance method of the run, read test by test.

    Attributes:
        is_control: whether others are compared with it.
        n_seeds: of a method that draws; 1 where it draws nothing.
        has_sign: whether a negative score speaks against what is explained.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, ScoredMethod
        >>> method: ScoredMethod = HeldScores(torch.tensor([[[0.1, 0.4, -0.2]]]))  # one seed, one test, three rows
        >>> method.dense(0, 0, 1)
        tensor([[ 0.1000,  0.4000, -0.2000]])
        >>> method.first(0, 2)[0]
        tensor([[1, 0]])
    """

    @property
    def is_control(self) -> bool: ...

    @property
    def n_seeds(self) -> int: ...

    @property
    def has_sign(self) -> bool: ...

    def dense(self, seed: int, start: int, stop: int) -> Tensor:
        """Scores of all train rows for tests start … stop − 1 under one of its seeds, [stop − start, n_train]."""

    def first(self, seed: int, k: int) -> tuple[Tensor, Tensor]:
        """Best train rows of every test and their scores, best first, [tests, k] each."""

    def ranking(self) -> Tensor:
        """All train rows by their mean score over the tests, best first, [n_train]."""

    def means(self) -> Tensor:
        """Mean score of every train row over the tests, for several seeds over these too, [n_train], float64."""

    def self_influence(self) -> Tensor | None:
        """Score of each train row against itself, [n_train]; None: it has none."""


@dataclass(frozen=True)
class HeldScores:
    """`ScoredMethod` of scores that are in memory.

    Attributes:
        scores: [seeds, tests, n_train].
        is_control: whether others are compared with it.
        own: score of each train row against itself, [n_train], or None.
        has_sign: whether a negative score speaks against what is explained.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores
        >>> HeldScores(torch.tensor([[[0.1, 0.4], [0.3, -0.4]]])).ranking()
        tensor([0, 1])
    """

    scores: Tensor
    is_control: bool = False
    own: Tensor | None = None
    has_sign: bool = True

    @property
    def n_seeds(self) -> int:
        """Length of the first dimension."""
        return len(self.scores)

    def dense(self, seed: int, start: int, stop: int) -> Tensor:
        """See `ScoredMethod`."""
        return self.scores[seed, start:stop]

    def first(self, seed: int, k: int) -> tuple[Tensor, Tensor]:
        """See `ScoredMethod`."""
        values, rows = self.scores[seed].sort(dim=1, descending=True, stable=True)
        return rows[:, :k], values[:, :k]

    def ranking(self) -> Tensor:
        """See `ScoredMethod`."""
        return torch.argsort(self.means(), descending=True, stable=True)

    def means(self) -> Tensor:
        """See `ScoredMethod`."""
        return self.scores.double().mean((0, 1))

    def self_influence(self) -> Tensor | None:
        """See `ScoredMethod`."""
        return self.own


@dataclass(frozen=True)
class TruthInputs:
    """What ground truth asks of a run.

    Attributes:
        n_train: rows of the train split.
        methods: instance methods of the run by name.
        index: row of each explained example in its split, [tests].
        measure: fits on train rows and measures φ, in nats: log p of what is explained, or how much likelier it is than
            what it is explained against.
        train_label: gold class of every train row, −1 where unknown, [n_train].
        head: head inputs of the train split with gold labels and of the tests, where the head is frozen features' only
            reader; None: the run has none.
        columns: plant columns of yes and no of the train split and of the tests, [n_train] and [tests], by name.
        memory_budget: bytes of working memory.
        target: what is explained of each test, [tests].
        groups: by method, tests asked together and the train rows that carry them (`AskedTogether`).

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> scores = HeldScores(torch.randn(1, 2, 6))
        >>> inputs = TruthInputs(6, {"mine": scores}, torch.arange(2), lambda rows, seed: torch.zeros(2))
        >>> inputs.measure([0, 1, 2], 0).shape
        torch.Size([2])
    """

    n_train: int
    methods: Mapping[str, ScoredMethod]
    index: Tensor
    measure: Measure
    train_label: Tensor | None = None
    head: tuple[HeadInputs, HeadInputs] | None = None
    columns: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    memory_budget: int = 2**28
    target: Tensor | None = None
    groups: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether train rows have labels; documents have none."""
        return self.train_label is not None and bool((self.train_label >= 0).any())

    @property
    def tests(self) -> int:
        """Explained examples."""
        return len(self.index)

    def rankable(self, named: Sequence[str] | None = None) -> list[str]:
        """Methods that have one list for each test: they draw nothing and are no control; of `named` ones, if given."""
        read = [name for name, method in self.methods.items() if method.n_seeds == 1 and not method.is_control]
        return [name for name in read if named is None or name in named]


class GroundTruth:
    """An evaluation that holds the run's instance methods against something measured.

    Attributes:
        reads_all_scores: whether it needs the score of every train row, so that lists have to cover the split.
        refits: whether it trains the model again, which a trained classifier has no recipe for.
        rank_by: how a plan ranks the train split.

    Example:
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth
        >>> from twinlens.attribution.evaluation.result import Result
        >>> class Rows(GroundTruth):
        ...     def evaluate(self, inputs):
        ...         return [Result("rows", inputs.n_train, method=name) for name in inputs.methods]
        >>> Rows().requires
        'ground_truth'
    """

    requires: ClassVar[str] = "ground_truth"
    reads_all_scores: ClassVar[bool] = False
    refits: ClassVar[bool] = False
    rank_by: ClassVar[RankBy] = "mean"

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        if self.refits and (lacking := missing_fit(available)):
            return lacking
        return "" if available.instance else "at least one instance method (e.g. method=gradsim)"

    def lacking(self, inputs: TruthInputs) -> str:
        """What the rows lack, once they are there; empty where nothing is missing."""
        return ""

    def evaluate(self, inputs: TruthInputs) -> list[Result]:
        """Results over the run's instance methods."""
        raise NotImplementedError

    def fits(self, rankings: Mapping[str, Tensor], label: Tensor | None = None) -> list[tuple[Tensor, int]]:
        """Train rows and seed of every fit, for a plan; none: they are known when it runs."""
        return []

    def fits_of(self, inputs: TruthInputs) -> list[tuple[Tensor, int]]:
        """Train rows and seed of every fit that `evaluate` will ask for, so that runs can share them out."""
        return self.fits({"": torch.arange(inputs.n_train)}) if self.refits else []

    def expected_fits(self, n_train: int, n_methods: int) -> Sequence[int]:
        """Train rows of every fit, for a plan."""
        return []

    def require_coverage(self, evaluation: str, name: str, top_k: int, n_train: int) -> None:
        """Refuse lists that do not hold the score of every train row, best and worst list together.

        Args:
            evaluation: its name in the configuration.
            name, top_k: of the method.
            n_train: rows of the train split.

        Raises:
            UserError: naming the setting.
        """
        if self.reads_all_scores and 2 * top_k < n_train:
            raise UserError(
                f"evaluation={evaluation} reads the scores of all {n_train} train rows, but method.{name}.top_k="
                f"{top_k} keeps {top_k} at either end; expected lists that cover the split: set method.{name}."
                f"top_k={-(-n_train // 2)}."
            )


def require_ranked(evaluation: str, named: Sequence[str] | None, ranked: Sequence[str]) -> None:
    """Refuse methods named by an evaluation's `methods` that the run does not have, or that draw their scores.

    Args:
        evaluation: its name in the configuration.
        named: its `methods`; None: all.
        ranked: the run's instance methods that draw nothing.

    Raises:
        UserError: naming the first of them.
    """
    strange = [name for name in named or () if name not in ranked]
    if strange or named == []:
        raise UserError(
            f"evaluation.{evaluation}.methods={list(named or ())} names {strange[0] if strange else 'no method'}; "
            f"expected instance methods of the run that draw nothing ({', '.join(ranked)}): name some of these, or "
            "write null for all."
        )
