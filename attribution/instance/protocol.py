"""Protocol of instance methods: a method prepares a scorer on the train split, the scorer scores blocks.

A scorer never sees more than a block of tests and a block of train rows at once, so nothing in this package ever holds
a tests × train matrix; `twinlens.attribution.instance.stream` chooses the blocks and keeps the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from twinlens.attribution.instance.block_sizes import ScorerSize
from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.method import Lens, Method, MethodKind


class Inputs(Protocol):
    """Common side of everything that methods read: examples in a row that can be cut.

    Example:
        >>> from twinlens.attribution.instance.inputs import TextInputs
        >>> from twinlens.attribution.instance.protocol import Inputs
        >>> inputs: Inputs = TextInputs(["one", "two", "three"])
        >>> len(inputs), len(inputs.rows(0, 2))
        (3, 2)
    """

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> Any:
        """A contiguous part of the examples, of the same type."""


@runtime_checkable
class InstanceScorer(ScorerSize, Protocol):
    """Scores of test examples against the train split it was prepared on.

    A scorer whose scores may be −∞ (no influence at all) has besides the attribute `ranks = True`; then the train
    summary gets mean ranks, for which `twinlens.attribution.instance.stream` keeps whole rows of scores.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.protocol import InstanceScorer
        >>> from twinlens.attribution.instance.similarity import HiddenSimilarity
        >>> train, test = example_head_inputs()
        >>> scorer = HiddenSimilarity().prepare(train, BUDGET)
        >>> isinstance(scorer, InstanceScorer), scorer.describe()["sign"]
        (True, 'none: a similarity, carries no loss sign')
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).shape  # [tests, train]
        torch.Size([2, 4])
    """

    def describe(self) -> dict[str, object]:
        """Resolved settings, solver, residual, absolute damping, sign and unit, for `method.yaml`."""

    def query(self, test: Any, index: Tensor) -> Any:
        """Prepare a block of tests to be scored; `index` [tests] holds their rows in the split. The result is opaque.

        `test` is what the method reads, like `train` in `prepare`.
        """

    def scores(self, query: Any, start: int, stop: int) -> Tensor:
        """Scores against train rows start … stop − 1, [tests, stop − start]."""

    def self_influence(self) -> Tensor | None:
        """Each train example's score against itself, [n_train], float64; None where the method has none."""


class InstanceMethod(Method):
    """A configured method that scores train examples; extend it.

    A method that differentiates a loss also has `labels: LabelSource`, whose labels callers put into
    `HeadInputs.labels` of the train split. Those of the tests are what the run explains of them; a method whose scores
    do not depend on that says `explains = None`.

    Attributes:
        reads: what `prepare` and the scorer's `query` are given, see `twinlens.callbacks.attribute.dispatch`.
        top_k: length of the stored best and worst lists.

    Example:
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> from twinlens.attribution.instance.protocol import InstanceMethod
        >>> method = GradientSimilarity(top_k=10)
        >>> isinstance(method, InstanceMethod), method.reads, method.top_k
        (True, 'head', 10)
    """

    lens = "instance"
    explains: Lens | None = "instance"

    @property
    def reads(self) -> str:
        """Cached head inputs, unless the method says otherwise."""
        return "head"

    @property
    def kind(self) -> MethodKind | None:
        """An instance method."""
        return "instance"

    def prepare(self, train: Any, memory_budget: int) -> InstanceScorer:
        """Do once what all tests share.

        Args:
            train: the train split, in row order, as `reads` says.
            memory_budget: bytes that the preparation may use, and that the scorer may go on holding.
        """
        raise NotImplementedError

    def cost(self, sizes: PassSizes) -> InstanceCost:
        """What the pass takes, from shapes alone; a method that does not say takes the whole budget, for unknown time.

        Raises:
            UserError: what is asked for does not fit the budget.
        """
        return InstanceCost(sizes.budget, None)


@dataclass(frozen=True)
class InstanceScores:
    """The best and the worst train examples of each test example, best first and worst first.

    Attributes:
        index: row of the test example in its split, [tests], int64.
        top_index: train rows with the highest scores, [tests, k], int64; k = min(top_k, train examples). Of equal
            scores the lower train row comes first, in both lists.
        top_score: their scores, [tests, k], float32; −∞ says that the train example has no influence and fills a place.
        bottom_index: train rows with the lowest scores, the lowest first, [tests, k], int64.
        bottom_score: their scores, [tests, k], float32.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.protocol import InstanceScores
        >>> scores = InstanceScores(
        ...     index=torch.tensor([7]),
        ...     top_index=torch.tensor([[2, 0]]), top_score=torch.tensor([[0.9, 0.4]]),
        ...     bottom_index=torch.tensor([[1, 3]]), bottom_score=torch.tensor([[-0.8, -0.1]]),
        ... )
        >>> len(scores), scores.top_index[0, 0].item()  # train row 2 helped test 7 most
        (1, 2)
    """

    index: Tensor
    top_index: Tensor
    top_score: Tensor
    bottom_index: Tensor
    bottom_score: Tensor

    def __len__(self) -> int:
        return len(self.index)
