"""Log-probability increase in delta form: the change that a vector makes at a point of the residual stream.

With the final norm frozen and z the scores at the point x, p = softmax(z), a vector c·v adds m·c·(Uv) to the scores, so

    Imp = lp(x + c·v) − lp(x) = m·c·(U_w − pᵀU)·v − log Σ_i p_i exp(m·c·(U_i − pᵀU)·v).

The first term is the tangent. The second is the logarithm of a mean of exponentials whose exponents have mean 0, hence
never negative (Jensen): the tangent is an upper bound, and the difference is summed with expm1, which keeps the digits
of small increases that a difference of two logsumexps would lose. Where the target is explained against another output
a, lp is a difference of two scores and linear: Imp = m·c·(U_w − U_a)·v, the tangent itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.neuron.readout import Readout, at_target


@dataclass(frozen=True)
class Points:
    """Points of the residual stream at which vectors are added.

    Attributes:
        log_prob: lp(x) of the target, [batch, layers]; with `against` its difference to that one's.
        probability: softmax of the scores, [batch, layers, outputs].
        mean: pᵀU, [batch, layers, width].
        slope: U_w − pᵀU, gradient of lp by the final hidden state, [batch, layers, width]; U_w − U_a with `against`.
        exact: whether lp is a difference of two scores, so that the tangent is the increase itself.

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.increase import points_of
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> points = points_of(readout_of(model, states, batch["labels"]), states.residual)
        >>> points.log_prob.shape, points.slope.shape  # 2 examples, 3 entries of the stream, width 4
        (torch.Size([2, 3]), torch.Size([2, 3, 4]))
    """

    log_prob: Tensor
    probability: Tensor
    mean: Tensor
    slope: Tensor
    exact: bool = False


@dataclass(frozen=True)
class Units:
    """Neurons of one site as coefficient times value vector, the vector shared by all examples.

    Attributes:
        base: residual stream that a layer's neurons are added to, [batch, layers, hidden].
        coefficient: [batch, layers, units, positions]; FFN neurons have one position, attention neurons the tokens.
        values: layer → value vectors, [units, hidden].
        positional: whether the last axis of `coefficient` stands for tokens.
        routed: whether a coefficient of 0 is of an expert that the token was not sent to, which no list has.

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
        >>> model = ExampleResidualModel()
        >>> states = model.states(example_batch())
        >>> ffn_units(model, states).coefficient.shape  # [batch, layers, neurons, 1]
        torch.Size([2, 2, 5, 1])
        >>> attention_units(model, states).coefficient.shape  # [batch, layers, heads · head_dim, tokens]
        torch.Size([2, 2, 4, 4])
    """

    base: Tensor
    coefficient: Tensor
    values: Callable[[int], Tensor]
    positional: bool
    routed: bool = False

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self.coefficient.shape[1]

    def rows(self, start: int, stop: int) -> Units:
        """A contiguous part of the examples."""
        return replace(self, base=self.base[start:stop], coefficient=self.coefficient[start:stop])

    def at_origin(self) -> Units:
        """The same neurons added to nothing: lp(c·v) itself is their increase at 0 plus lp(0)."""
        return replace(self, base=torch.zeros_like(self.base))


def points_of(readout: Readout, base: Tensor) -> Points:
    """All that `Points` keeps of base [batch, layers, hidden], for linear readouts."""
    assert readout.weight is not None
    log_probs = readout.scores(base).log_softmax(-1)
    log_prob = at_target(log_probs, readout.target)
    own = readout.weight[readout.target].to(readout.dtype)[:, None]
    if readout.against is not None:
        log_prob = log_prob - at_target(log_probs, readout.against)
        slope = (own - readout.weight[readout.against].to(readout.dtype)[:, None]).expand(*log_prob.shape, -1)
        return Points(log_prob, log_probs.exp_(), slope, slope, exact=True)
    probability = log_probs.exp_()
    mean = readout.mean_output(probability)
    return Points(log_prob, probability, mean, own - mean)


def row_increases(
    readout: Readout, base: Tensor, points: Points, example: Tensor, layer: Tensor, vectors: Tensor
) -> Tensor:
    """Imp of rows with addresses of their own, [rows].

    Args:
        base: as given to `points_of`.
        example, layer: of each row, int64 [rows].
        vectors: direction(v) times coefficient and scale, [rows, width].
    """
    tangent = (vectors * points.slope[example, layer]).sum(-1)
    if points.exact:
        return tangent
    exponent = readout.times_outputs(vectors)
    exponent -= (vectors * points.mean[example, layer]).sum(-1, keepdim=True)
    excess = torch.linalg.vecdot(exponent.expm1_(), points.probability[example, layer])
    increase = tangent - torch.log1p(excess.clamp(min=0))
    return mended(readout, base, increase, excess, example, layer, vectors)


def mended(
    readout: Readout, base: Tensor, increase: Tensor, excess: Tensor, example: Tensor, layer: Tensor, vectors: Tensor
) -> Tensor:
    """Increases [rows] with those whose exponentials overflowed computed again from logarithms, in float64.

    Args:
        base, example, layer, vectors: as for `row_increases`.
        increase: changed in place, [rows].
        excess: mean of the exponentials less 1; not finite where they overflowed, [rows].
    """
    for row in (~torch.isfinite(excess)).nonzero()[:, 0].tolist():
        b, point = int(example[row]), base[int(example[row]), int(layer[row])]
        before = readout.rows(b, b + 1).scores(point[None]).double()[0].log_softmax(-1)
        after = (before + readout.times_outputs(vectors[row]).double()).log_softmax(-1)
        target = int(readout.target[b])
        increase[row] = (after[target] - before[target]).to(increase.dtype)
    return increase


def dense_increases(readout: Readout, units: Units, memory_budget: int) -> Iterator[tuple[int, Tensor]]:
    """Imp of every neuron, one layer at a time: (layer, [batch, units, positions]).

    Streams over neurons and vocabulary; U·v is shared by all examples and positions. A readout that is not linear is
    evaluated for each neuron.

    Raises:
        UserError: when the budget does not hold the examples' distributions, see `dense_bytes`.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.increase import dense_increases
        >>> from twinlens.attribution.neuron.logprob_increase import ffn_units
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> readout = readout_of(model, states, batch["labels"])
        >>> for layer, increase in dense_increases(readout, ffn_units(model, states), BUDGET):
        ...     print(layer, increase[0, :, 0].round(decimals=2))  # of the first example, nats
        0 tensor([-0.9400,  0.2200,  0.5100,  0.2100, -0.0400])
        1 tensor([0.0000, 0.2000, 0.0700, 0.5900, 0.2100])
    """
    if not readout.linear:
        yield from _dense_by_head(readout, units, memory_budget)
        return
    n_rows, n_columns = block_sizes(readout, units, memory_budget)
    n_units = units.coefficient.shape[2]
    for layer in range(units.n_layers):
        points = points_of(readout, units.base[:, layer : layer + 1])
        values = units.values(layer)
        blocks = []
        for start in range(0, n_units, n_rows):
            coefficient = units.coefficient[:, layer, start : start + n_rows].to(readout.dtype)
            blocks.append(_dense_block(readout, points, values[start : start + n_rows], coefficient, n_columns))
        increase, excess = (torch.cat(part, 1) for part in zip(*blocks, strict=True))
        yield layer, with_overflows_mended(readout, units, layer, increase, excess)


def block_sizes(readout: Readout, units: Units, memory_budget: int) -> tuple[int, int]:
    """Neurons and outputs of one block of products.

    Raises:
        UserError: when the budget does not hold the examples' distributions, see `dense_bytes`.
    """
    n_units, n_positions = units.coefficient.shape[2:]
    hidden, itemsize = units.base.shape[-1], readout.scale.element_size()
    fixed = dense_bytes(len(readout), n_units, n_positions, readout.n_outputs, hidden, itemsize)
    entries = (memory_budget - fixed) // (2 * itemsize)
    least = 2 * itemsize * (hidden + 1)
    require_room(entries > hidden, fixed + least, memory_budget, f"the distributions of {len(readout)} sentences")
    on_cpu = units.base.device.type == "cpu"
    # on CPUs a block and its exponentials should stay in the cache
    n_rows = max(1, min(n_units, 512 if on_cpu else 8192, entries // (2 * hidden)))
    n_columns = max(1, min(entries // n_rows - hidden, (1 << 20 if on_cpu else 1 << 27) // n_rows))
    return n_rows, n_columns


def _dense_block(
    readout: Readout, points: Points, values: Tensor, coefficient: Tensor, n_columns: int
) -> tuple[Tensor, Tensor]:
    """Imp and the mean of the exponentials less 1, both [batch, units, positions], for a block of one layer's neurons.

    Args:
        points: of that layer alone.
        values: [units, hidden].
        coefficient: [batch, units, positions].
    """
    directions = readout.direction(values).to(readout.dtype)
    coefficient = coefficient * readout.scale[:, None, None]
    if points.exact:
        tangent = coefficient * (directions @ points.slope[:, 0].T).T[..., None]
        return tangent, torch.zeros_like(tangent)
    mean = directions @ points.mean[:, 0].T
    excess = torch.zeros_like(coefficient)
    # padding and silent neurons add nothing; columns that hold nothing else are passed over
    live = (coefficient != 0).any(1).nonzero().tolist()
    for left in range(0, readout.n_outputs, n_columns):
        shared = directions @ readout.outputs(left, left + n_columns).T
        weights = points.probability[:, 0, left : left + n_columns]
        for b, p in live:
            exponent = torch.sub(shared, mean[:, b, None]).mul_(coefficient[b, :, p, None])
            excess[b, :, p] += exponent.expm1_() @ weights[b]
    tangent = coefficient * (directions @ points.slope[:, 0].T).T[..., None]
    return tangent - torch.log1p(excess.clamp(min=0)), excess


def with_overflows_mended(readout: Readout, units: Units, layer: int, increase: Tensor, excess: Tensor) -> Tensor:
    """A layer's increases [batch, units, positions] with those that overflowed computed from logarithms."""
    b, unit, p = (~torch.isfinite(excess)).nonzero().T
    if len(b):
        coefficient = units.coefficient[b, layer, unit, p].to(readout.dtype) * readout.scale[b]
        vectors = readout.direction(units.values(layer)[unit]).to(readout.dtype) * coefficient[:, None]
        at_layer = torch.full_like(b, layer)
        increase[b, unit, p] = mended(
            readout, units.base, increase[b, unit, p], excess[b, unit, p], b, at_layer, vectors
        )
    return increase


def _dense_by_head(readout: Readout, units: Units, memory_budget: int) -> Iterator[tuple[int, Tensor]]:
    """The dense form for heads that are not linear: lp at every x + c·v."""
    hidden = units.base.shape[-1]
    n_examples, n_layers, n_units, n_positions = units.coefficient.shape
    step = memory_budget // (8 * hidden * n_positions * readout.scale.element_size())
    require_room(step > 0, 8 * hidden * n_positions * 4, memory_budget, "one neuron's hidden states")
    for layer in range(n_layers):
        values = units.values(layer).to(readout.dtype)
        scores = []
        for b in range(n_examples):
            own, point = readout.rows(b, b + 1), units.base[b : b + 1, layer].to(readout.dtype)
            before = own.log_prob(point)
            for start in range(0, n_units, step):
                coefficient = units.coefficient[b, layer, start : start + step, :, None].to(readout.dtype)
                added = coefficient * values[start : start + step, None]
                scores.append((own.log_prob(point[:, None, None] + added[None]) - before)[0])
        yield layer, torch.cat(scores).unflatten(0, (n_examples, n_units))


def vector_increases(readout: Readout, base: Tensor, vectors: Tensor, memory_budget: int) -> Tensor:
    """lp(x + v) − lp(x) for vectors of each example's own: heads, heads at a position, layers.

    Args:
        base: [batch, layers, hidden].
        vectors: [batch, layers, vectors, hidden].

    Returns:
        [batch, layers, vectors].

    Raises:
        UserError: when the budget does not hold one example's distributions.
    """
    n_examples, n_layers, n_vectors = vectors.shape[:3]
    itemsize = readout.scale.element_size()
    if not readout.linear:
        base = base.to(readout.dtype)
        return readout.log_prob(base[:, :, None] + vectors.to(readout.dtype)) - readout.log_prob(base)[..., None]
    hidden, row = base.shape[-1], 3 * readout.n_outputs * itemsize
    each = itemsize * (n_layers * (3 * readout.n_outputs + 3 * hidden) + n_layers * n_vectors * hidden)
    require_room(memory_budget >= each + row, each + row, memory_budget, "one sentence's distributions")
    at_once = max(1, min(n_examples, memory_budget // 2 // each))
    step = (memory_budget - at_once * each) // row
    scores = []
    for first in range(0, n_examples, at_once):
        own, point = readout.rows(first, first + at_once), base[first : first + at_once]
        points, place = points_of(own, point), torch.arange(len(own) * n_layers * n_vectors, device=base.device)
        example, layer = place // (n_layers * n_vectors), place // n_vectors % n_layers
        directions = readout.direction(vectors[first : first + at_once].flatten(0, 2)).to(readout.dtype)
        rows = directions * own.scale[example, None]
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            scores.append(row_increases(own, point, points, example[part], layer[part], rows[part]))
    return torch.cat(scores).unflatten(0, (n_examples, n_layers, n_vectors))


def dense_bytes(n_examples: int, n_units: int, n_positions: int, n_outputs: int, hidden: int, itemsize: int = 4) -> int:
    """Bytes of one layer in `dense_increases`; `states` not counted. Its blocks take what the budget leaves."""
    return itemsize * (n_examples * (3 * n_outputs + 2 * hidden) + 5 * n_units * n_examples * n_positions)


def require_room(enough: bool, needed: int, memory_budget: int, what: str) -> None:
    """Refuse a budget that does not hold what cannot be split further.

    Raises:
        UserError: with both numbers.
    """
    if not enough:
        raise UserError(
            f"memory_budget is {bytes_in_words(memory_budget)}, but {what} need {bytes_in_words(needed)} at once; "
            "expected more than that: raise memory_budget or take fewer or shorter sentences per batch."
        )
