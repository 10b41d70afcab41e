"""Increases of chosen entries, each a neuron of a sentence at a position: U·v once for all that share the neuron.

The product of a value vector with a large vocabulary costs far more than an exponential of every output. Among the
best entries a neuron of attention stands at several positions, and one of either site in several sentences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.neuron.increase import Points, Units, mended
from twinlens.attribution.neuron.readout import Readout

OUTPUTS_FROM = 8192
"""Below this number of outputs the products cost little."""
ROWS, COLUMNS = 256, 1024
"""On CPUs a block of products should stay in the cache: neurons and outputs of one."""
ENTRIES = 1024
"""Entries whose exponentials of a block are taken at a time; fewer would be many small operations."""


def entry_increases(
    readout: Readout,
    units: Units,
    points: Points,
    example: Tensor,
    layer: Tensor,
    unit: Tensor,
    position: Tensor,
    room: int,
) -> Tensor:
    """Imp of entries with addresses of their own, [entries], for linear readouts.

    Args:
        points: of `units.base`.
        example, layer, unit, position: of each entry, int64 [entries].
        room: numbers that blocks may hold.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.increase import points_of
        >>> from twinlens.attribution.neuron.logprob_increase import attention_units
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> from twinlens.attribution.neuron.shared_products import entry_increases
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> readout, units = readout_of(model, states, batch["labels"]), attention_units(model, states)
        >>> example, layer, unit, position = torch.tensor([[0, 0, 1], [1, 1, 1], [3, 3, 3], [0, 2, 2]])
        >>> points = points_of(readout, units.base)
        >>> entry_increases(readout, units, points, example, layer, unit, position, 1000).round(decimals=3)  # nats
        tensor([0.0040, 0.3850, 0.1330])
    """
    coefficient = units.coefficient[example, layer, unit, position].to(readout.dtype) * readout.scale[example]
    increase, excess = torch.empty_like(coefficient), torch.zeros_like(coefficient)
    n_rows, n_columns = _block_sizes(readout, units.base, room)
    for present in layer.unique().tolist():
        here = (layer == present).nonzero()[:, 0]
        distinct, row = unit[here].unique(return_inverse=True)
        values = units.values(present)
        for start in range(0, len(distinct), n_rows):
            inside = (row >= start) & (row < start + n_rows)
            chosen, own = here[inside], row[inside] - start
            directions = readout.direction(values[distinct[start : start + n_rows]]).to(readout.dtype)
            tangent = (directions @ points.slope[:, present].T)[own, example[chosen]]
            increase[chosen] = tangent * coefficient[chosen]
            if points.exact:
                continue
            mean = directions @ points.mean[:, present].T
            excess[chosen] = mean_exponentials(
                readout, points.probability[:, present], directions, mean, example[chosen], own, coefficient[chosen],
                n_columns,
            )  # fmt: skip
    if points.exact:
        return increase
    increase -= torch.log1p(excess.clamp(min=0))
    lost = (~torch.isfinite(excess)).nonzero()[:, 0]
    if len(lost):
        at = layer[lost]
        vectors = torch.stack([units.values(int(n))[m] for n, m in zip(at, unit[lost], strict=True)])
        vectors = readout.direction(vectors).to(readout.dtype) * coefficient[lost, None]
        increase[lost] = mended(readout, units.base, increase[lost], excess[lost], example[lost], at, vectors)
    return increase


def mean_exponentials(
    readout: Readout,
    probability: Tensor,
    directions: Tensor,
    mean: Tensor,
    example: Tensor,
    row: Tensor,
    coefficient: Tensor,
    n_columns: int,
) -> Tensor:
    """Σ_i p_i exp(c·(U_i − pᵀU)·v) − 1 of entries at one layer, [entries].

    Args:
        probability: p of every sentence, [batch, outputs].
        directions: of the neurons, [units, width].
        mean: pᵀU·v, [units, batch].
        example, row: sentence of each entry, and its neuron's row of `directions`, int64 [entries].
        coefficient: c times the final norm's scale, [entries].
        n_columns: outputs whose products are taken at a time.
    """
    centre, found = mean[row, example], torch.zeros_like(coefficient)
    for left in range(0, readout.n_outputs, n_columns):
        shared = directions @ readout.outputs(left, left + n_columns).T
        weights = probability[:, left : left + n_columns]
        for start in range(0, len(row), ENTRIES):
            part = slice(start, start + ENTRIES)
            exponent = shared.index_select(0, row[part]).sub_(centre[part, None]).mul_(coefficient[part, None])
            found[part] += torch.linalg.vecdot(exponent.expm1_(), weights.index_select(0, example[part]))
    return found


def _block_sizes(readout: Readout, base: Tensor, room: int) -> tuple[int, int]:
    """Neurons and outputs of one block of products: its directions, the block, and exponentials with their weights."""
    on_cpu = base.device.type == "cpu"
    n_rows = max(1, min(ROWS if on_cpu else 8192, room // (2 * base.shape[-1])))
    n_columns = max(1, min(COLUMNS if on_cpu else readout.n_outputs, room // 2 // (n_rows + 2 * ENTRIES)))
    return n_rows, n_columns
