"""TracIn over kept checkpoints (TracInCP, Pruthi et al. 2020, Eq. 3).

Score of train example i for test example t: Σ_c η_c ⟨∇_c L_t, ∇_c L_i⟩ over the head's parameters, or those of any
layers, η_c the learning rate that led to checkpoint c. Positive: the steps on i lowered the loss of t.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, overload

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.options import PROJECTION_PAPERS, LabelSource, Per
from twinlens.attribution.gradients.projection import ProjectionKind
from twinlens.attribution.gradients.row_forms import Storage
from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.instance.curvature import blocks
from twinlens.attribution.instance.factors import LayerFactors, gram, squared_norms
from twinlens.attribution.instance.gradsim import similarity_block_bytes, similarity_cost
from twinlens.attribution.instance.head_gradients import (
    DifferentiableHead,
    check_inputs,
    differentiable_head,
    loss_factors,
)
from twinlens.attribution.instance.inputs import CheckpointInputs
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.instance.tracin_rows import CheckpointRows, TracInRowScorer


@dataclass(frozen=True)
class TracIn(OverLayers):
    """Inner products of gradients, summed over checkpoints.

    Attributes:
        params: `weight` or `head`, of the head; `all` linear layers, or patterns over their names, with a projection.
        labels: labels in the losses of train rows; callers pass them in `HeadInputs.labels`.
        top_k: length of the stored lists.
        dtype: type of the matrix products over the head, whose gradients are always taken in float64; rows of layers
            are float32.
        projection: `none`, `random` or `pca`: gradients of layers beyond the head are projected before they are stored.
        projection_dim: numbers per side of a projected layer.
        projection_seed: draws the random projection.
        storage, storage_rank: how stored rows are kept, see `twinlens.attribution.gradients.row_forms`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.inputs import CheckpointInputs, HeadInputs
        >>> from twinlens.attribution.instance.tracin import TracIn
        >>> def along_training(features, labels):  # head inputs under two checkpoints, learning rate 0.1 at both
        ...     heads = [torch.nn.Linear(2, 2, bias=False) for _ in range(2)]
        ...     for head, weight in zip(heads, (0.0, 1.0)):
        ...         _ = torch.nn.init.constant_(head.weight, weight)
        ...     inputs = [HeadInputs(torch.tensor(features), torch.tensor(labels), head) for head in heads]
        ...     return CheckpointInputs(tuple((part, 0.1) for part in inputs))
        >>> train = along_training([[1.0, 0.0], [0.0, 1.0]], [0, 1])
        >>> test = along_training([[1.0, 0.5]], [0])
        >>> scorer = TracIn().prepare(train, memory_budget=2**20)
        >>> scorer.scores(scorer.query(test, torch.tensor([0])), 0, 2)  # row 1 has the other label
        tensor([[ 0.1000, -0.0500]], dtype=torch.float64)
    """

    papers: ClassVar[tuple[str, ...]] = ("pruthi2020tracin", *PROJECTION_PAPERS)
    per: ClassVar[Per] = "example"  # type: ignore[misc]  # of others it is a setting
    sign: ClassVar[str] = "positive: towards the target; the steps on the train example raised its log-probability"
    unit: ClassVar[str] = "loss change by one step per checkpoint, nats"

    params: str = "head"
    labels: LabelSource = "gold"
    top_k: int = 100
    dtype: Literal["float64", "float32"] = "float64"
    projection: ProjectionKind = "none"
    projection_dim: int = 16
    projection_seed: int = 0
    storage: Storage = "dense"
    storage_rank: int = 3

    def __post_init__(self) -> None:
        self.gradients.check()
        if not self.gradients.of_head and self.projection == "none":
            raise UserError(
                f"method.tracin.params={self.params} needs the gradients of every layer under every checkpoint, but "
                "projection=none keeps none; expected small ones: set projection=random."
            )

    @property
    def reads(self) -> str:
        """Head inputs or stored rows, under every kept checkpoint."""
        return "checkpoints" if self.gradients.of_head else "checkpoint_rows"

    @property
    def adds_up(self) -> bool:
        """Over layers that see all tokens."""
        return not self.gradients.of_head

    def cost(self, sizes: PassSizes) -> InstanceCost:
        """As gradient similarity, under every checkpoint."""
        return similarity_cost(sizes, self.gradients.head_parameters)

    @overload
    def prepare(self, train: CheckpointInputs, memory_budget: int) -> TracInScorer: ...

    @overload
    def prepare(self, train: CheckpointRows, memory_budget: int) -> TracInRowScorer: ...

    def prepare(self, train: CheckpointInputs | CheckpointRows, memory_budget: int) -> TracInScorer | TracInRowScorer:
        """Check the train split under every checkpoint.

        Raises:
            UserError: without checkpoints, with a learning rate that is no positive number, or for bad inputs.
        """
        if not train.steps:
            raise UserError(
                "tracin was given no checkpoint; expected those at the end of every epoch of this run's fit, which it "
                "keeps for tracin by itself: set fit=true and trainer.max_epochs to at least 1."
            )
        rates = [rate for _, rate in train.steps]
        if not all(0 < rate < float("inf") for rate in rates):
            raise UserError(
                f"tracin was given the learning rates {rates}; expected positive numbers: keep only checkpoints that "
                "training steps led to."
            )
        if isinstance(train, CheckpointRows):
            return TracInRowScorer(train, {"sign": self.sign, "unit": self.unit}, memory_budget)
        heads = []
        for inputs, _ in train.steps:
            head = differentiable_head(inputs.head, self.gradients.head_parameters, inputs.sequences)
            check_inputs(inputs, head, torch.arange(len(inputs)), "train")
            heads.append(head)
        return TracInScorer(self, tuple(heads), train, memory_budget)


@dataclass(frozen=True)
class TracInScorer:
    """`InstanceScorer` of `TracIn`.

    Attributes:
        method: the settings.
        heads: the head of each checkpoint, differentiated.
        train: the train split under each checkpoint.
        memory_budget: bytes of working memory.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.inputs import CheckpointInputs
        >>> from twinlens.attribution.instance.tracin import TracIn
        >>> train, _ = example_head_inputs()
        >>> scorer = TracIn().prepare(CheckpointInputs(((train, 1e-3), (train, 5e-4))), BUDGET)
        >>> scorer.describe()["learning_rates"], scorer.self_influence().shape
        ([0.001, 0.0005], torch.Size([4]))
    """

    method: TracIn
    heads: tuple[DifferentiableHead, ...]
    train: CheckpointInputs
    memory_budget: int
    n_train: int = field(init=False)
    bytes_per_query: int = field(init=False)
    bytes_per_row: int = field(init=False)
    bytes_held: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_train", len(self.train))
        # A query keeps its gradients under all checkpoints; train rows meet one checkpoint after the other.
        object.__setattr__(self, "bytes_per_query", sum(map(similarity_block_bytes, self.heads)))
        object.__setattr__(self, "bytes_per_row", max(map(similarity_block_bytes, self.heads)))

    def describe(self) -> dict[str, object]:
        """Settings, learning rates, sign and unit."""
        return {
            "checkpoints": len(self.heads),
            "learning_rates": [rate for _, rate in self.train.steps],
            "params": self.method.params,
            "labels": self.method.labels,
            "dtype": self.method.dtype,
            "n_parameters": self.heads[0].n_parameters,
            "sign": self.method.sign,
            "unit": self.method.unit,
        }

    def query(self, test: CheckpointInputs, index: Tensor) -> list[list[LayerFactors]]:
        """Factored loss gradients of the tests under every checkpoint, times its learning rate."""
        result = []
        for head, (inputs, _), (_, rate) in zip(self.heads, test.steps, self.train.steps, strict=True):
            check_inputs(inputs, head, index, "test")
            result.append([f.scaled(rate).to(self._dtype) for f in loss_factors(head, inputs)])
        return result

    def scores(self, query: list[list[LayerFactors]], start: int, stop: int) -> Tensor:
        """[tests, stop − start]."""
        total: Tensor | None = None
        part = self.train.rows(start, stop)
        for head, factors, (inputs, _) in zip(self.heads, query, part.steps, strict=True):
            product = gram(factors, [f.to(self._dtype) for f in loss_factors(head, inputs)])
            total = product if total is None else total.add_(product)
        assert total is not None
        return total

    def self_influence(self) -> Tensor:
        """Σ_c η_c ‖∇_c L_i‖² of each train example, [n_train], float64."""
        total = torch.zeros(self.n_train, dtype=torch.float64)
        per_row = max(head.squares_numbers for head in self.heads) * 8
        for start, stop in blocks(self.n_train, per_row, self.memory_budget):
            for head, (inputs, rate) in zip(self.heads, self.train.rows(start, stop).steps, strict=True):
                total[start:stop] += rate * squared_norms(loss_factors(head, inputs)).cpu()
        return total

    @property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self.method.dtype)
