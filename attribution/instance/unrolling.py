"""Segmented unrolling of training (SOURCE: Bae, Lin, Lorraine and Grosse 2024), over kept epochs.

Influence functions ask what the optimum would be with other weights of the train rows. This asks what *training* would
have given: gradient descent is differentiated through all of its steps, where every kept epoch is one segment in which
gradients g_ℓ and curvature H_ℓ stand still. With T_ℓ the sum of the segment's learning rates,

    score(t, i) = Σ_ℓ ⟨ (1 − exp(−T_ℓ H_ℓ))/H_ℓ  exp(−T_{ℓ+1} H_{ℓ+1}) … exp(−T_L H_L) ∇L_t , ∇_ℓ L_i ⟩.

What a row has taught early is forgotten as far as later segments are curved. There is no damping: where T_ℓ H_ℓ is
small the segment counts like TracIn's, where it is large like influence functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.fisher import Fisher
from twinlens.attribution.gradients.options import KRONECKER_PAPERS, PROJECTION_PAPERS, LabelSource, Per
from twinlens.attribution.gradients.projected import RowScorer
from twinlens.attribution.gradients.projection import ProjectionKind
from twinlens.attribution.gradients.row_forms import Storage
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.segments import Segment
from twinlens.attribution.instance.layer_curvature import kronecker_solve
from twinlens.attribution.instance.over_layers import Losses, OverLayers, RowSolve
from twinlens.attribution.instance.tracin_rows import CheckpointRows

BYTES_OF_STEPS = 3 * 8
"""Working memory of a test's numbers while it goes through the segments: the gradient, its rotation and the product."""


@dataclass(frozen=True)
class SegmentedUnrolling(OverLayers):
    """Training differentiated through its steps, an epoch at a time.

    Attributes:
        params: `all` linear layers, or patterns over their names.
        labels: labels in the losses of train rows.
        top_k: length of the stored lists.
        curvature: of a segment, `ekfac` or `kfac`, from rows under the weights at its end.
        fisher: labels in it: exact `expectation` over the model's distribution, or `empirical`, the train labels.
        rate_scale: what learning rates are multiplied by, above 0; 1 is plain gradient descent. Adam divides each step
            by the size of the gradients, so that its time runs faster.
        projection, projection_dim, projection_seed, storage, storage_rank: of stored rows, see `OverLayers`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> from twinlens.attribution.instance.tracin_rows import CheckpointRows
        >>> from twinlens.attribution.instance.unrolling import SegmentedUnrolling
        >>> covariances = ((torch.eye(2).double(), torch.ones(1, 1).double()),)  # so that H is the identity by K-FAC
        >>> train = GradientRows(row_layout(["score"], [(1, 2)]), (torch.eye(2),), covariances=covariances)
        >>> epochs = CheckpointRows(((train, 0.5), (train, 0.5)))  # the sum of learning rates in each of two epochs
        >>> scorer = SegmentedUnrolling(curvature="kfac", fisher="empirical").prepare(epochs, 2**20)
        >>> test = GradientRows(train.layout, (torch.tensor([[1.0, -2.0]]),))
        >>> scorer.scores(scorer.query(test, torch.tensor([0])), 0, 2)  # 1 − exp(−1): as one epoch of both
        tensor([[ 0.6321, -1.2642]])
    """

    papers: ClassVar[tuple[str, ...]] = (
        "bae2024source",
        *KRONECKER_PAPERS,
        *PROJECTION_PAPERS,
    )
    per: ClassVar[Per] = "example"  # type: ignore[misc]  # of others it is a setting
    sign: ClassVar[str] = "positive: towards the target; more training on the train example raises its log-probability"
    unit: ClassVar[str] = "loss change per unit of weight in the mean train loss, nats; over n_train: leave one out"

    params: str = "all"
    labels: LabelSource = "gold"
    top_k: int = 100
    curvature: Literal["ekfac", "kfac"] = "ekfac"
    fisher: Fisher = "expectation"
    rate_scale: float = 1.0
    projection: ProjectionKind = "random"
    projection_dim: int = 16
    projection_seed: int = 0
    storage: Storage = "dense"
    storage_rank: int = 3

    def __post_init__(self) -> None:
        self.gradients.check()
        if self.gradients.of_head or self.projection == "none":
            raise UserError(
                f"method.source.params={self.params} with projection={self.projection} keeps no gradients of layers, "
                "which are read under the weights of every epoch; expected stored ones: set params=all "
                "projection=random."
            )
        if not 0 < self.rate_scale < float("inf"):
            raise UserError(
                f"method.source.rate_scale={self.rate_scale:g} lets no training pass; expected a number above 0: use 1 "
                "for gradient descent, more for Adam."
            )

    @property
    def reads(self) -> str:
        """Stored rows under the weights of every epoch, and the explained model's of the tests."""
        return "segment_rows"

    @property
    def adds_up(self) -> bool:
        """Gradients of sums are sums of gradients."""
        return True

    @property
    def curvature_losses(self) -> Losses:
        """Whose gradients a segment's curvature is made of."""
        return "expectation" if self.fisher == "expectation" else "loss"

    def solve_rows(self, sides: list[tuple[int, int]], n_train: int, rank: int, budget: int) -> RowSolve:  # type: ignore[override]
        """See `OverLayers.solve_rows`; of one segment."""
        return kronecker_solve(sides, n_train, rank)

    def prepare(self, train: CheckpointRows, memory_budget: int) -> UnrolledScorer:
        """Decompose every segment's curvature.

        Args:
            train: the split's rows under the weights at the end of each epoch up to the explained one, each with the
                rows of its curvature and with the sum of the epoch's learning rates.

        Raises:
            UserError: without epochs, with learning rates that do not add up to a positive number, or where a layer's
                curvature vanishes.
        """
        rates = [rate for _, rate in train.steps]
        if not rates or not all(0 < rate < float("inf") for rate in rates):
            raise UserError(
                f"source was given epochs whose learning rates add up to {rates}; expected positive numbers, those of "
                "this run's fit: set fit=true and trainer.max_epochs to at least 1."
            )
        return UnrolledScorer(self, train, memory_budget)


class UnrolledScorer:
    """`InstanceScorer` of `SegmentedUnrolling`.

    Args:
        method: the settings.
        train: rows of every segment, with those of its curvature, and its learning rates added up.
        memory_budget: bytes of working memory.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> from twinlens.attribution.instance.tracin_rows import CheckpointRows
        >>> from twinlens.attribution.instance.unrolling import SegmentedUnrolling, UnrolledScorer
        >>> covariances = ((torch.eye(2).double(), torch.ones(1, 1).double()),)
        >>> train = GradientRows(row_layout(["score"], [(1, 2)]), (torch.eye(2),), covariances=covariances)
        >>> method = SegmentedUnrolling(curvature="kfac", fisher="empirical")
        >>> scorer = UnrolledScorer(method, CheckpointRows(((train, 0.5),)), memory_budget=2**20)
        >>> scorer.self_influence().round(decimals=4)  # (1 − exp(−½)) ‖g‖²
        tensor([0.3935, 0.3935], dtype=torch.float64)
        >>> scorer.describe()["segments"]
        1
    """

    def __init__(self, method: SegmentedUnrolling, train: CheckpointRows, memory_budget: int) -> None:
        self.method = method
        self.train = train
        self.memory_budget = memory_budget
        self.n_train = len(train)
        self.scorers = [RowScorer(rows, {}, memory_budget) for rows, _ in train.steps]
        self.segments = [
            Segment(rows.curvature_rows, method.rate_scale * rate, method.curvature == "ekfac")
            for rows, rate in train.steps
        ]
        numbers = train.steps[0][0].layout.n_numbers
        self.bytes_per_query = numbers * (4 * len(self.segments) + BYTES_OF_STEPS)
        self.bytes_per_row = 0  # train rows are mapped, not read into memory of their own
        self.bytes_held = sum(segment.bytes_held for segment in self.segments)
        self.bytes_held += max(scorer.bytes_held for scorer in self.scorers)

    def describe(self) -> dict[str, object]:
        """Settings, times and mean eigenvalues of the segments, sign and unit."""
        return {
            **self.scorers[0].describe(),
            "segments": len(self.segments),
            "rate_sums": [rate for _, rate in self.train.steps],
            "rate_scale": self.method.rate_scale,
            "curvature": self.method.curvature,
            "fisher": self.method.fisher,
            "mean_eigenvalue": [segment.means for segment in self.segments],
            "sign": self.method.sign,
            "unit": self.method.unit,
        }

    def query(self, test: GradientRows, index: Tensor) -> list[list[Tensor]]:
        """Left factors of the tests' scores in every segment, one [tests, width] per group of layers, float32.

        Args:
            test: rows of the tests under the explained model's weights.
            index: their rows in the split, [tests].
        """
        groups = [group.double() for group in self.scorers[0].query(test, index)]
        return [[group.to(torch.float32) for group in part] for part in self._through(groups)]

    def scores(self, query: list[list[Tensor]], start: int, stop: int) -> Tensor:
        """[tests, stop − start], float32."""
        parts = [scorer.scores(own, start, stop) for scorer, own in zip(self.scorers, query, strict=True)]
        return torch.stack(parts).sum(0)

    def self_influence(self) -> Tensor:
        """Each train row's score against itself, [n_train], float64; its own gradient under the last epoch's weights
        stands for a test's."""
        last = self.train.steps[-1][0]
        each = 8 * len(self.segments) + BYTES_OF_STEPS
        parts, start = [], 0
        for block in last.blocks(each, max(0, self.memory_budget - self.bytes_held)):
            stop = start + len(block)
            through = self._through([group.double() for group in block.groups])
            parts.append(
                sum(
                    (left * right.double()).sum(1)
                    for (rows, _), own in zip(self.train.steps, through, strict=True)
                    for left, right in zip(own, rows.rows(start, stop).formed().groups, strict=True)
                )
            )
            start = stop
        return torch.cat(parts)  # type: ignore[arg-type]

    def _through(self, groups: list[Tensor]) -> list[list[Tensor]]:
        """What gradients at the end of training are worth in every segment, in the order of training, float64."""
        found = []
        for segment in reversed(self.segments):
            found.append(segment.gathered(groups))
            groups = segment.decayed(groups)
        return found[::-1]
