"""The exact best neurons without scoring every neuron: sort by an upper bound, evaluate from the top, stop in time.

The tangent of the log-probability bounds the increase from above (see `increase`), and costs one product per layer.
Neurons are evaluated in the order of their bounds until the k-th best exact score is above the next bound: no neuron
that was not evaluated can be among the k best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.increase import Points, Units, points_of, require_room, row_increases
from twinlens.attribution.neuron.readout import Readout
from twinlens.attribution.neuron.shared_products import OUTPUTS_FROM, entry_increases

PARTS = ("layer", "unit", "position", "score", "bound", "evaluated")
UNIT_BLOCK = 1024
"""Neurons whose value vectors are widened and sent through the final norm at a time."""


@dataclass(frozen=True)
class TopUnits:
    """The best neurons of each example, best first; ties go to the lower layer, unit and position.

    Attributes:
        layer, unit, position: int32 [batch, k]; position −1 for neurons that have none.
        score: [batch, k].
        bound: highest upper bound of a neuron that was not evaluated, −inf where all were, [batch].
        evaluated: neurons whose exact score was computed, int64 [batch].

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.bounded_search import TopUnits
        >>> top = TopUnits(
        ...     layer=torch.tensor([[1, 0]]), unit=torch.tensor([[4, 2]]), position=torch.tensor([[-1, -1]]),
        ...     score=torch.tensor([[0.8, 0.5]]), bound=torch.tensor([0.3]), evaluated=torch.tensor([6]),
        ... )
        >>> top.certified  # no neuron that was left out can reach 0.5
        tensor([True])
    """

    layer: Tensor
    unit: Tensor
    position: Tensor
    score: Tensor
    bound: Tensor
    evaluated: Tensor

    @property
    def certified(self) -> Tensor:
        """Whether the list is proven to be the exact one, [batch]; the search ends only when it is."""
        return self.score[:, -1] > self.bound

    def first(self, k: int) -> TopUnits:
        """The list of the `k` best."""
        layer, unit, position, score = (part[:, :k] for part in (self.layer, self.unit, self.position, self.score))
        return replace(self, layer=layer, unit=unit, position=position, score=score)

    def rows(self, start: int, stop: int) -> TopUnits:
        """A contiguous part of the examples."""
        return TopUnits(*(getattr(self, name)[start:stop] for name in PARTS))

    def places(self, n_units: int, n_positions: int) -> Tensor:
        """Where the neurons lie in [layers · units · positions], int64 [batch, k]."""
        return (self.layer.long() * n_units + self.unit) * n_positions + self.position.clamp(min=0)


def top_units(
    readout: Readout,
    units: Units,
    top_k: int,
    memory_budget: int,
    score: str = "logprob_increase",
    known: TopUnits | None = None,
) -> TopUnits:
    """The exact `top_k` neurons of each example.

    Args:
        memory_budget: bytes that the search may take; results do not depend on it.
        score: `logprob_increase` (Eq. 13), `log_prob` = lp(c·v), `prob_increase` = p(w|x+c·v) − p(w|x): all grow with
            the increase at their point, so the same bound serves them.
        known: a shorter list by the same score, whose neurons are not scored again.

    Raises:
        UserError: when the budget does not hold one example, see `search_bytes`; an unknown score; a readout that is
            not linear, for which no bound is known.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.bounded_search import top_units
        >>> from twinlens.attribution.neuron.logprob_increase import ffn_units
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> found = top_units(readout_of(model, states, batch["labels"]), ffn_units(model, states), 2, BUDGET)
        >>> found.score.round(decimals=2), found.certified  # nats
        (tensor([[0.5900, 0.5100],
                [1.0500, 0.6100]]), tensor([True, True]))
    """
    if not readout.linear:
        raise UserError(
            "the bound needs a linear readout, and this head is not linear; expected model.head=linear or lm_head: "
            "take the dense form (static_scores.best_neurons chooses by itself)."
        )
    if score not in ("logprob_increase", "log_prob", "prob_increase"):
        raise UserError(
            f"no bound is known for the score '{score}'; expected logprob_increase, log_prob, prob_increase."
        )
    if score == "log_prob":
        units = units.at_origin()
    n_examples, n_layers, n_units, n_positions = units.coefficient.shape
    itemsize = readout.scale.element_size()
    shape = (n_layers, n_units, n_positions, readout.n_outputs, units.base.shape[-1])
    each, row = search_bytes(*shape, itemsize), 4 * (readout.n_outputs + shape[-1]) * itemsize
    block = 3 * min(n_units, UNIT_BLOCK) * shape[-1] * itemsize
    least = each + row + block
    require_room(memory_budget >= least, least, memory_budget, "the scores and bounds of one sentence")
    step = max(1, min(n_examples, (memory_budget - block) // 2 // each))
    n_rows = max(1, (memory_budget - step * each) // row)
    # products rounded to bf16 would break the bounds: autocast is for the model's forward
    with torch.autocast(units.base.device.type, enabled=False):
        parts = [
            _search(
                readout.rows(i, i + step),
                units.rows(i, i + step),
                top_k,
                n_rows,
                score,
                None if known is None else known.rows(i, i + step),
            )
            for i in range(0, n_examples, step)
        ]
    return TopUnits(*(torch.cat([getattr(part, name) for part in parts]) for name in PARTS))


def _search(readout: Readout, units: Units, top_k: int, n_rows: int, score: str, known: TopUnits | None) -> TopUnits:
    """The search over examples that fit together; room for `n_rows` exact evaluations at a time."""
    n_examples, _, n_units, n_positions = units.coefficient.shape
    points = points_of(readout, units.base)
    bound = _bounds(readout, units, points)
    at_layer = points.log_prob[:, :, None, None]
    bound = transformed(bound, at_layer, score).flatten(1)
    # a coefficient of 0 adds nothing: its score is known, and no exponential is needed
    idle = (units.coefficient == 0).flatten(1)
    nothing = transformed(torch.zeros_like(at_layer), at_layer, score).expand(units.coefficient.shape).flatten(1)
    found = torch.where(idle, -torch.inf if units.routed else nothing, -torch.inf)
    ordered, order = bound.masked_fill_(idle, -torch.inf).sort(dim=1, descending=True)
    del bound, nothing
    if known is not None:
        found.scatter_(1, known.places(n_units, n_positions), known.score)
    top_k = min(top_k, found.shape[1])
    evaluated = torch.zeros(n_examples, dtype=torch.int64, device=found.device)
    width = top_k
    while True:
        best = found.topk(top_k, 1).values[:, -1:]
        columns = evaluated[:, None] + torch.arange(width, device=found.device)
        inside = columns < found.shape[1]
        columns = columns.clamp(max=found.shape[1] - 1)
        bounds = ordered.gather(1, columns)
        worth = inside & (bounds >= best) & (bounds > -torch.inf)
        if not bool(worth.any()):
            break
        example, place = worth.nonzero().T
        flat = order[example, columns[example, place]]
        if known is not None:
            new = found[example, flat] == -torch.inf
            example, flat = example[new], flat[new]
        for start in range(0, len(flat), n_rows):
            part = slice(start, start + n_rows)
            found[example[part], flat[part]] = _exact(readout, units, points, example[part], flat[part], n_rows, score)
        evaluated += worth.sum(1)
        width = max(16, top_k // 4)
    rest = ordered.gather(1, evaluated[:, None].clamp(max=found.shape[1] - 1))[:, 0]
    rest = rest.where(evaluated < found.shape[1], -torch.inf)
    return listed(found, None, top_k, n_units, n_positions, units.positional, rest, evaluated)


def _bounds(readout: Readout, units: Units, points: Points) -> Tensor:
    """Upper bounds of the increase, [batch, layers, units, positions], raised by what rounding may take off."""
    bound = units.coefficient.to(readout.dtype) * readout.scale[:, None, None, None]
    # of a product summed in any order; exact scores are rounded by less than the bound's own error
    rounding = 16 * torch.finfo(readout.dtype).eps
    for layer in range(units.n_layers):
        slope, values = points.slope[:, layer], units.values(layer)
        length = slope.norm(dim=-1, keepdim=True)
        for start in range(0, len(values), UNIT_BLOCK):
            part = slice(start, start + UNIT_BLOCK)
            directions = readout.direction(values[part]).to(readout.dtype)
            slack = rounding * length * directions.norm(dim=-1)
            size = bound[:, layer, part].abs() * slack[..., None]
            bound[:, layer, part] = bound[:, layer, part] * (slope @ directions.T)[..., None] + size
    return bound


def _exact(
    readout: Readout, units: Units, points: Points, example: Tensor, flat: Tensor, n_rows: int, score: str
) -> Tensor:
    """Exact scores of neurons by their place in [layers · units · positions], [rows]; `n_rows` fit at once."""
    n_units, n_positions = units.coefficient.shape[2:]
    layer, within = flat // (n_units * n_positions), flat % (n_units * n_positions)
    unit, position = within // n_positions, within % n_positions
    if readout.n_outputs >= OUTPUTS_FROM:
        room = 4 * n_rows * (readout.n_outputs + units.base.shape[-1])
        increase = entry_increases(readout, units, points, example, layer, unit, position, room)
        return transformed(increase, points.log_prob[example, layer], score)
    vectors = points.slope.new_empty(len(flat), points.slope.shape[-1])
    for present in layer.unique().tolist():
        chosen = layer == present
        vectors[chosen] = readout.direction(units.values(present)[unit[chosen]]).to(readout.dtype)
    coefficient = units.coefficient[example, layer, unit, position].to(readout.dtype) * readout.scale[example]
    increase = row_increases(readout, units.base, points, example, layer, vectors * coefficient[:, None])
    return transformed(increase, points.log_prob[example, layer], score)


def transformed(increase: Tensor, log_prob: Tensor, score: str) -> Tensor:
    """A score from the increase and the `log_prob` at its point, [...] each; it grows with the increase."""
    if score == "prob_increase":
        return log_prob.exp() * increase.expm1()
    return increase + log_prob if score == "log_prob" else increase


def listed(
    scores: Tensor,
    places: Tensor | None,
    top_k: int,
    n_units: int,
    n_positions: int,
    positional: bool,
    rest: Tensor,
    evaluated: Tensor,
) -> TopUnits:
    """The `top_k` best of scores [batch, candidates], which lie at `places` in [layers · units · positions].

    `places` None: the candidates are all of them, in order. Equal scores keep the order they come in. `rest` and
    `evaluated` [batch] become the list's `bound` and `evaluated`.
    """
    ordered, chosen = scores.sort(dim=1, descending=True, stable=True)
    ordered, chosen = ordered[:, :top_k], chosen[:, :top_k]
    place = chosen if places is None else places.gather(1, chosen)
    position = place % n_positions if positional else torch.full_like(place, -1)
    return TopUnits(
        layer=(place // (n_units * n_positions)).int(),
        unit=(place // n_positions % n_units).int(),
        position=position.int(),
        score=ordered,
        bound=rest,
        evaluated=evaluated,
    )


def search_bytes(n_layers: int, n_units: int, n_positions: int, n_outputs: int, hidden: int, itemsize: int = 4) -> int:
    """Memory of the search per example beside the rows it evaluates, in bytes; `states` not counted.

    Distributions of every layer three times; coefficients, bounds, scores and their sorted copies with 64-bit places.
    """
    units = n_layers * n_units * n_positions
    return itemsize * (n_layers * (3 * n_outputs + 2 * hidden) + 6 * units) + 17 * units
