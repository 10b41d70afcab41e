"""Ranks of targets among U·direction(v), which depend on target and neuron alone: one pass serves all prompts.

Ranks start at 1 for the highest score and leave out every bias: v stands alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.neuron.readout import OUTPUT_BLOCK, Readout
from twinlens.attribution.residual_protocol import ResidualModel

CACHED_ROWS, CACHED_COLUMNS = 512, 512
"""On CPUs: a block of scores that every target is compared with should stay in the cache."""
TARGETS_AT_ONCE = 4


@dataclass(frozen=True)
class TargetRanks:
    """Ranks of a run's targets for all neurons of a site.

    Attributes:
        targets: distinct outputs in rising order, int64 [targets].
        ranks: 1 the highest, int32 [targets, layers, units].

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.target_ranks import TargetRanks
        >>> known = TargetRanks(torch.tensor([2, 5]), torch.tensor([[[1, 4]], [[3, 1]]]))  # 1 layer, 2 units
        >>> known.of(torch.tensor([5, 2, 5])).tolist()
        [[[3, 1]], [[1, 4]], [[3, 1]]]
        >>> known.of(torch.tensor([5, 7])) is None  # nothing is known about 7
        True
    """

    targets: Tensor
    ranks: Tensor

    def of(self, target: Tensor) -> Tensor | None:
        """Ranks of each example's target [batch], [batch, layers, units]; None where one is not among `targets`."""
        targets = self.targets.to(target.device)
        place = torch.searchsorted(targets, target).clamp(max=len(targets) - 1)
        if not torch.equal(targets[place], target):
            return None
        return self.ranks[place.to(self.ranks.device)].to(target.device)


def bare_readout(model: ResidualModel, targets: Tensor) -> Readout:
    """The readout of vectors that stand alone: no statistic, no bias."""
    weight = model.output_weight
    dtype = torch.float32 if weight is None else torch.promote_types(weight.dtype, torch.float32)
    scale = torch.ones(len(targets), dtype=dtype, device=targets.device)
    return Readout(model.final_direction, scale, targets, model.head, weight)


def values_of(values: Callable[[int], Tensor], n_units: int, index: Tensor) -> Tensor:
    """Value vectors by their place in [layers · units], `index` [rows], [rows, hidden]."""
    layer = index // n_units
    return torch.cat([values(at)[index[layer == at] % n_units] for at in layer.unique().tolist()])


def target_ranks(readout: Readout, values: Tensor, targets: Tensor, memory_budget: int) -> Tensor:
    """Rank of each target among U·direction(v), 1 the highest, [targets, units], int64.

    The product is taken once for all targets. A head that is not linear ranks head(direction(v)).

    Args:
        values: value vectors v, [units, hidden].
        targets: outputs, [targets], int64.
        memory_budget: bytes of working memory.
    """
    # ranks of products rounded to bf16 would be those of other numbers: autocast is for the model's forward
    with torch.autocast(values.device.type, enabled=False):
        directions = readout.direction(values).to(readout.dtype)
        if readout.weight is None:
            scores = readout.head(directions).to(readout.dtype)
            return 1 + (scores[None] > scores.T[targets][..., None]).sum(-1)
        return _linear_ranks(readout, directions, targets, memory_budget)


def _linear_ranks(readout: Readout, directions: Tensor, targets: Tensor, memory_budget: int) -> Tensor:
    assert readout.weight is not None
    on_cpu = directions.device.type == "cpu"
    n_columns = CACHED_COLUMNS if on_cpu else OUTPUT_BLOCK
    n_rows = memory_budget // ((2 + TARGETS_AT_ONCE) * directions.element_size() * (n_columns + directions.shape[1]))
    n_rows = max(1, min(n_rows, CACHED_ROWS if on_cpu else 1 << 16))
    numbers = targets.tolist()
    own_outputs = readout.weight[targets].to(readout.dtype).T
    ranks = torch.ones(len(targets), len(directions), dtype=torch.int64, device=directions.device)
    for start in range(0, len(directions), n_rows):
        rows = directions[start : start + n_rows]
        own = (rows @ own_outputs).T[..., None]
        for left in range(0, readout.n_outputs, n_columns):
            scores = rows @ readout.outputs(left, left + n_columns).T
            # the same number by another product may differ in its last digit and outrank itself
            for place, target in enumerate(numbers):
                if left <= target < left + n_columns:
                    column = scores[:, target - left]
                    torch.minimum(column, own[place, :, 0], out=column)
            # a mask of numbers is compared and summed several times faster than one of booleans
            above = torch.empty(
                min(TARGETS_AT_ONCE, len(numbers)), *scores.shape, dtype=scores.dtype, device=rows.device
            )
            for first in range(0, len(numbers), TARGETS_AT_ONCE):
                some = slice(first, first + TARGETS_AT_ONCE)
                mask = torch.gt(scores, own[some], out=above[: len(numbers) - first])
                ranks[some, start : start + n_rows] += mask.sum(-1).long()
    return ranks
