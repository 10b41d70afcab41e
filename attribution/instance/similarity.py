"""Similarity of hidden states at the answer position. Carries no loss sign, and reads no labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.instance.head_gradients import DifferentiableHead, differentiable_head, head_logits
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod

Measure = Literal["cosine", "dot", "euclidean"]

SAME = 1e-12
"""Squared distances below this share of the squared lengths are 0: float32 states are no more exact than that, and
copies of one example must tie."""
UNITS: dict[Measure, str] = {
    "cosine": "cosine, -1 to 1",
    "dot": "squared activation",
    "euclidean": "negative distance, activation",
}


@dataclass(frozen=True)
class HiddenSimilarity(InstanceMethod):
    """Similarity of the head's inputs.

    For multiple choice an example's state is that of the predicted choice's sequence, as for neurons.

    Attributes:
        measure: `cosine`, `dot` product, or `euclidean`, the negative distance.
        top_k: length of the stored lists.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.inputs import HeadInputs
        >>> from twinlens.attribution.instance.similarity import HiddenSimilarity
        >>> head = torch.nn.Linear(2, 2)
        >>> train = HeadInputs(torch.tensor([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0]]), torch.tensor([0, 1, 0]), head)
        >>> test = HeadInputs(torch.tensor([[3.0, 0.0]]), torch.tensor([0]), head)
        >>> scorer = HiddenSimilarity(measure="cosine").prepare(train, memory_budget=2**20)
        >>> scorer.scores(scorer.query(test, torch.tensor([0])), 0, 3).round(decimals=2)
        tensor([[ 1.0000,  0.7100, -1.0000]], dtype=torch.float64)
    """

    explains = None
    sign: ClassVar[str] = "none: a similarity, carries no loss sign"

    measure: Measure = "cosine"
    top_k: int = 100

    @property
    def unit(self) -> str:
        """Unit of the scores."""
        return UNITS[self.measure]

    def cost(self, sizes: PassSizes) -> InstanceCost:
        """Blocks of states."""
        head = differentiable_head(sizes.head, "weight", sizes.sequences)
        hidden = head.layers[0].in_features
        per_row = hidden_block_bytes(hidden, head)
        return InstanceCost(sizes.streamed(per_row, per_row), 2.0 * sizes.n_train * sizes.n_test * hidden)

    def prepare(self, train: HeadInputs, memory_budget: int) -> HiddenSimilarityScorer:
        """Check the train split; nothing is precomputed but which choice is predicted."""
        require_finite(train.features, "The head input of train examples", torch.arange(len(train)))
        head = differentiable_head(train.head, "weight", train.sequences)
        return HiddenSimilarityScorer(self.measure, head, train)


@dataclass(frozen=True)
class HiddenSimilarityScorer:
    """`InstanceScorer` of `HiddenSimilarity`.

    Attributes:
        measure: the similarity.
        head: finds the predicted choice where an example has several sequences.
        train: the train split.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.similarity import HiddenSimilarity
        >>> train, test = example_head_inputs()
        >>> scorer = HiddenSimilarity(measure="euclidean").prepare(train, BUDGET)
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).round(decimals=2)  # 0 is the nearest there is
        tensor([[-1.0000, -1.0000, -2.2400, -2.2400],
                [-2.2400, -2.2400, -1.0000, -1.0000]], dtype=torch.float64)
    """

    measure: Measure
    head: DifferentiableHead
    train: HeadInputs
    n_train: int = field(init=False)
    bytes_per_query: int = field(init=False)
    bytes_per_row: int = field(init=False)
    bytes_held: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_train", len(self.train))
        per_example = hidden_block_bytes(self.train.features.shape[-1], self.head)
        object.__setattr__(self, "bytes_per_query", per_example)
        object.__setattr__(self, "bytes_per_row", per_example)

    def describe(self) -> dict[str, object]:
        """Measure, sign and unit."""
        return {
            "measure": self.measure,
            "state": "hidden state at the answer position" + (", predicted choice" if self.head.sequences > 1 else ""),
            "sign": HiddenSimilarity.sign,
            "unit": UNITS[self.measure],
        }

    def query(self, test: HeadInputs, index: Tensor) -> Tensor:
        """States of the tests (of unit length for the cosine), [tests, hidden], float64."""
        require_finite(test.features, "The head input of test examples", index)
        return self._states(test)

    def scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        """[tests, stop − start], float64."""
        states = self._states(self.train.rows(start, stop))
        product = query @ states.T
        if self.measure != "euclidean":
            return product
        lengths = query.square().sum(1)[:, None] + states.square().sum(1)
        squared = product.mul_(-2).add_(lengths)
        squared.masked_fill_(squared < SAME * lengths, 0.0)
        return squared.sqrt_().neg_()

    def self_influence(self) -> None:
        """None: being similar to oneself is no influence."""
        return None

    def _states(self, inputs: HeadInputs) -> Tensor:
        states = inputs.features.to(torch.float64)
        if inputs.sequences > 1:
            predicted = head_logits(self.head, states).argmax(1)
            states = states[torch.arange(len(states), device=states.device), predicted]
        if self.measure == "cosine":
            lengths = states.norm(dim=1, keepdim=True)
            # A vanishing state has no direction: its similarity to anything is 0.
            states = states * torch.where(lengths > 0, 1 / lengths, 0.0)
        return states


def hidden_block_bytes(hidden: int, head: DifferentiableHead) -> int:
    """Working memory of one example: its states, those normalised, and the activations that find the prediction."""
    finding = head.factor_numbers if head.sequences > 1 else 0
    return 8 * (hidden * (head.sequences + 2) + finding)
