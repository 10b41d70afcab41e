"""Log-probability increases of every neuron of many sentences, without an exponential per neuron, sentence and token.

With u = U·v and the moments M_n = Σ_i p_i (u_i − pᵀu)ⁿ the increase is the tangent less log(1 + Σ_n mⁿ M_n / n!): the
moments under p are shared by all positions, and the powers of u by all sentences. With x = |m| · max |u_i − pᵀu| the
terms after the N-th are together at most m² M_2 · x^(N−1) eˣ / (N+1)!, a share of the sum that is known beforehand.
Coefficients whose share exceeds `REST` take the dense form's exponentials, and no others do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, factorial

import torch
from torch import Tensor

from twinlens.attribution.neuron.increase import (
    Points,
    Units,
    block_sizes,
    dense_increases,
    points_of,
    with_overflows_mended,
)
from twinlens.attribution.neuron.readout import Readout
from twinlens.attribution.neuron.shared_products import COLUMNS, OUTPUTS_FROM, mean_exponentials

TERMS = 6
REST = 1e-6
"""Largest share of the terms that are left out; sums in float32 round by as much."""


def series_increases(readout: Readout, units: Units, memory_budget: int) -> Iterator[tuple[int, Tensor]]:
    """As `dense_increases`: (layer, [batch, units, positions]), within `REST` of it and of rounding.

    Raises:
        UserError: as `dense_increases`.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.logprob_increase import ffn_units
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> from twinlens.attribution.neuron.series_increases import series_increases
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> readout = readout_of(model, states, batch["labels"])
        >>> layers = series_increases(readout, ffn_units(model, states), BUDGET)
        >>> [increase[0, :2, 0].round(decimals=2) for _, increase in layers]  # of the first example, nats
        [tensor([-0.9400,  0.2200]), tensor([0.0000, 0.2000])]
    """
    if not readout.linear or readout.n_outputs < OUTPUTS_FROM or readout.against is not None:
        yield from dense_increases(readout, units, memory_budget)
        return
    assert readout.weight is not None
    n_rows, n_columns = block_sizes(readout, units, memory_budget)
    n_columns = min(n_columns, COLUMNS) if units.base.device.type == "cpu" else n_columns
    centre = readout.weight.mean(0, dtype=readout.dtype)
    for layer in range(units.n_layers):
        values, blocks = units.values(layer), []
        # moments of products rounded to bf16 would be those of other numbers: autocast is for the model's forward
        with torch.autocast(values.device.type, enabled=False):
            points = points_of(readout, units.base[:, layer : layer + 1])
            for start in range(0, len(values), n_rows):
                rows = slice(start, start + n_rows)
                coefficient = units.coefficient[:, layer, rows].to(readout.dtype) * readout.scale[:, None, None]
                directions = readout.direction(values[rows]).to(readout.dtype)
                blocks.append(_block(readout, points, directions, coefficient, centre, n_columns))
        increase, excess = (torch.cat(part, 1) for part in zip(*blocks, strict=True))
        yield layer, with_overflows_mended(readout, units, layer, increase, excess)


@dataclass(frozen=True)
class _Moments:
    """Of u under each sentence's distribution.

    Attributes:
        central: M_2 … M_TERMS, float64 [TERMS − 1, units, batch].
        reach: max |u_i − pᵀu|, [units, batch].
    """

    central: Tensor
    reach: Tensor


def _block(
    readout: Readout, points: Points, directions: Tensor, coefficient: Tensor, centre: Tensor, n_columns: int
) -> tuple[Tensor, Tensor]:
    """Increases and means of the exponentials less 1, both [batch, units, positions], of some of a layer's neurons.

    Args:
        points: of that layer alone.
        directions: [units, width].
        coefficient: times the final norm's scale, [batch, units, positions].
        centre: mean row of the head, [width].
    """
    moments = _moments(readout, points, directions, centre, n_columns)
    size = coefficient.abs() * moments.reach.T[..., None]
    # the sum is at least a third of m² M_2 wherever the rest is as small as this
    exact = 3 * size ** (TERMS - 1) * size.exp() / factorial(TERMS + 1) > REST
    excess = torch.zeros_like(coefficient, dtype=torch.float64)
    for n in range(TERMS, 1, -1):
        excess = (excess + moments.central[n - 2].T[..., None] / factorial(n)) * coefficient
    excess = (excess * coefficient).to(readout.dtype)
    if bool(exact.any()):
        _put_exact(readout, points, directions, coefficient, exact, excess, n_columns)
    tangent = coefficient * (directions @ points.slope[:, 0].T).T[..., None]
    return tangent - torch.log1p(excess.clamp(min=0)), excess


def _moments(readout: Readout, points: Points, directions: Tensor, centre: Tensor, n_columns: int) -> _Moments:
    """One pass over the vocabulary for all sentences; powers are taken about the vocabulary's mean and then moved."""
    shift = (directions @ (points.mean[:, 0] - centre).T).double()
    middle = directions @ centre
    raw = torch.zeros(TERMS - 1, *shift.shape, dtype=torch.float64, device=shift.device)
    low, high = torch.full_like(middle, torch.inf), torch.full_like(middle, -torch.inf)
    for left in range(0, readout.n_outputs, n_columns):
        scores = torch.addmm(-middle[:, None], directions, readout.outputs(left, left + n_columns).T)
        weights = points.probability[:, 0, left : left + n_columns].T
        low, high = low.minimum(scores.amin(1)), high.maximum(scores.amax(1))
        power = scores * scores
        raw[0] += power @ weights
        for n in range(3, TERMS + 1):
            raw[n - 2] += power.mul_(scores) @ weights
    about = [torch.ones_like(shift), shift, *raw]
    central = [
        sum((comb(n, k) * about[k] * (-shift) ** (n - k) for k in range(n + 1)), torch.zeros_like(shift))
        for n in range(2, TERMS + 1)
    ]
    mean = shift.to(readout.dtype)
    return _Moments(torch.stack(central), (high[:, None] - mean).maximum(mean - low[:, None]))


def _put_exact(
    readout: Readout,
    points: Points,
    directions: Tensor,
    coefficient: Tensor,
    exact: Tensor,
    excess: Tensor,
    n_columns: int,
) -> None:
    """Replace `excess` [batch, units, positions] where `exact` by the mean of the exponentials less 1."""
    units = exact.any(0).any(-1).nonzero()[:, 0]
    chosen = exact[:, units]
    directions, coefficient = directions[units], coefficient[:, units]
    mean = directions @ points.mean[:, 0].T
    b, row, p = chosen.nonzero().T
    found = torch.zeros_like(coefficient)
    found[b, row, p] = mean_exponentials(
        readout, points.probability[:, 0], directions, mean, b, row, coefficient[b, row, p], n_columns
    )
    excess[:, units] = torch.where(chosen, found, excess[:, units])
