"""Gradient similarity (Charpiat et al. 2019; Eq. 5 of Yu, Atanasova and Augenstein 2024).

Score of train example i for test example t: ⟨∇L_t, ∇L_i⟩ over the head's parameters, or its cosine. Positive: a
gradient step on i lowers the loss of t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, overload

import torch
from torch import Tensor

from twinlens.attribution.gradients.options import PROJECTION_PAPERS, HeadParameters, LabelSource, Per
from twinlens.attribution.gradients.projected import RowScorer
from twinlens.attribution.gradients.projection import ProjectionKind
from twinlens.attribution.gradients.row_forms import Storage
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.instance.factors import LayerFactors, gram
from twinlens.attribution.instance.head_gradients import DifferentiableHead, check_inputs, differentiable_head
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.loss_gradients import LossGradients
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.protocols import LinearLayer

Similarity = Literal["dot", "cosine"]


@dataclass(frozen=True)
class GradientSimilarity(OverLayers):
    """Inner product or cosine of head gradients.

    Attributes:
        similarity: `dot` is the inner product (the paper's), `cosine` divides by both lengths.
        params: `weight` or `head`, of the head; `all` linear layers, or patterns over their names.
        labels: labels in the losses of train rows; callers pass them in `HeadInputs.labels`.
        top_k: length of the stored lists.
        dtype: type of the matrix products. The head's gradients are always taken in float64; stored rows, and products
            of them, are float32.
        projection: `none`, `random` or `pca`: gradients of layers beyond the head are projected before they are stored.
        projection_dim: numbers per side of a projected layer.
        projection_seed: draws the random projection.
        storage, storage_rank: how stored rows are kept, see `twinlens.attribution.gradients.row_forms`.
        per: train rows are examples, or for language models the tokens of the training text.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> from twinlens.attribution.instance.inputs import HeadInputs
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> _ = torch.nn.init.zeros_(head.weight)  # so that every probability is ½
        >>> train = HeadInputs(torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 0]), head)
        >>> test = HeadInputs(torch.tensor([[1.0, 1.0]]), torch.tensor([0]), head)
        >>> scorer = GradientSimilarity().prepare(train, memory_budget=2**20)
        >>> scorer.scores(scorer.query(test, torch.tensor([0])), 0, 3)  # row 1 has the other label: it harms
        tensor([[ 0.5000, -0.2500,  0.5000]], dtype=torch.float64)
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified", "charpiat2019similarity", *PROJECTION_PAPERS)
    sign: ClassVar[str] = "positive: towards the target; a step on the train example raises its log-probability"

    similarity: Similarity = "dot"
    params: str = "head"
    labels: LabelSource = "gold"
    top_k: int = 100
    dtype: Literal["float64", "float32"] = "float64"
    projection: ProjectionKind = "none"
    projection_dim: int = 16
    projection_seed: int = 0
    storage: Storage = "dense"
    storage_rank: int = 3
    per: Per = "example"

    def __post_init__(self) -> None:
        self.gradients.check()

    @property
    def unit(self) -> str:
        """Unit of the scores."""
        return "loss change per unit learning rate, nats" if self.similarity == "dot" else "cosine, -1 to 1"

    @property
    def cosine(self) -> bool:
        """Whether both sides have unit length."""
        return self.similarity == "cosine"

    def describe_layers(self, layers: Sequence[LinearLayer], inverses: Sequence[Inverse]) -> dict[str, object]:
        """See `OverLayers.describe_layers`."""
        return {"similarity": self.similarity, **super().describe_layers(layers, inverses)}

    def cost(self, sizes: PassSizes) -> InstanceCost:
        """See `similarity_cost`."""
        return similarity_cost(sizes, self.gradients.head_parameters)

    @overload
    def prepare(self, train: HeadInputs, memory_budget: int) -> GradientSimilarityScorer: ...

    @overload
    def prepare(self, train: GradientRows, memory_budget: int) -> RowScorer: ...

    def prepare(self, train: HeadInputs | GradientRows, memory_budget: int) -> GradientSimilarityScorer | RowScorer:
        """Check the train split; factors are taken block by block, as they cost less than reading them back."""
        if isinstance(train, GradientRows):
            said: dict[str, object] = {"similarity": self.similarity, "sign": self.sign, "unit": self.unit}
            return RowScorer(train, said, memory_budget, cosine=self.cosine)
        head = differentiable_head(train.head, self.gradients.head_parameters, train.sequences)
        check_inputs(train, head, torch.arange(len(train)), "train")
        scorer = InnerProducts if self.similarity == "dot" else GradientSimilarityScorer
        return scorer(self, head, LossGradients.take(head, train, memory_budget), memory_budget)


def similarity_cost(sizes: PassSizes, params: HeadParameters) -> InstanceCost:
    """Blocks of factored gradients and their scores under every checkpoint, then self-influence."""
    head, times = differentiable_head(sizes.head, params, sizes.sequences), sizes.checkpoints
    per_row, kept = similarity_block_bytes(head), 8 * head.widths
    memory = max(
        sizes.streamed(times * per_row, per_row, kept=(times * kept, kept)),
        min(sizes.budget, 8 * sizes.n_train * head.squares_numbers),
    )
    each = sizes.n_test * head.pair_operations(1) + 4.0 * sizes.tests * head.widths
    return InstanceCost(memory, times * sizes.n_train * each)


def similarity_block_bytes(head: DifferentiableHead) -> int:
    """Working memory of one example's factored gradient."""
    return head.factor_numbers * 8


@dataclass(frozen=True)
class GradientSimilarityScorer:
    """`InstanceScorer` of `GradientSimilarity`.

    Attributes:
        method: the settings.
        head: the head, differentiated.
        train: gradients of the train losses.
        memory_budget: bytes of working memory.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> train, test = example_head_inputs()
        >>> scorer = GradientSimilarity(similarity="cosine").prepare(train, BUDGET)
        >>> scorer.scores(scorer.query(test.rows(0, 1), torch.tensor([0])), 0, 2).round(decimals=2)  # −1 to 1
        tensor([[ 1.0000, -0.7100]], dtype=torch.float64)
        >>> scorer.self_influence()
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """

    method: GradientSimilarity
    head: DifferentiableHead
    train: LossGradients
    memory_budget: int
    n_train: int = field(init=False)
    bytes_per_query: int = field(init=False)
    bytes_per_row: int = field(init=False)
    bytes_held: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_train", len(self.train.squares))
        per_example = similarity_block_bytes(self.head)
        object.__setattr__(self, "bytes_per_query", per_example)
        object.__setattr__(self, "bytes_per_row", per_example)

    def describe(self) -> dict[str, object]:
        """Settings, sign and unit."""
        return {
            "similarity": self.method.similarity,
            "params": self.method.params,
            "labels": self.method.labels,
            "dtype": self.method.dtype,
            "n_parameters": self.head.n_parameters,
            "sign": self.method.sign,
            "unit": self.method.unit,
        }

    def query(self, test: HeadInputs, index: Tensor) -> list[LayerFactors]:
        """Factored loss gradients of the tests (of unit length for the cosine)."""
        check_inputs(test, self.head, index, "test")
        return self._compared(LossGradients.take(self.head, test, self.memory_budget), slice(0, len(test)))

    def scores(self, query: list[LayerFactors], start: int, stop: int) -> Tensor:
        """[tests, stop − start]."""
        return gram(query, self._compared(self.train, slice(start, stop)))

    def self_influence(self) -> Tensor:
        """Squared gradient length for `dot`; 1, or 0 for a vanishing gradient, for `cosine`. [n_train], float64."""
        squares = self.train.squares
        return squares if self.method.similarity == "dot" else (squares > 0).double()

    def _compared(self, gradients: LossGradients, rows: Tensor | slice) -> list[LayerFactors]:
        factors = gradients.at(rows, getattr(torch, self.method.dtype))
        if self.method.similarity == "cosine":
            lengths = gradients.squares[rows].sqrt()
            # A vanishing gradient has no direction: its similarity to anything is 0.
            scale = torch.where(lengths > 0, 1 / lengths, 0.0)
            factors = [f.scaled(scale.to(f.deltas.dtype)) for f in factors]
        return factors


@dataclass(frozen=True)
class InnerProducts(GradientSimilarityScorer):
    """The same for `dot`, an `twinlens.attribution.instance.bounded.InnerProductScorer`.

    Attributes:
        lengths: of the train gradients, [n_train], float64.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> train, _ = example_head_inputs()
        >>> scorer = GradientSimilarity().prepare(train, BUDGET)
        >>> scorer.lengths.round(decimals=2)  # the wrongly labelled row 1 has by far the longest gradient
        tensor([0.3400, 1.7600, 0.3400, 0.2400], dtype=torch.float64)
    """

    lengths: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "lengths", self.train.squares.sqrt())

    def train_gradients(self, rows: Tensor) -> list[LayerFactors]:
        """Gradients of train examples, [rows], in factors."""
        return self._compared(self.train, rows)
