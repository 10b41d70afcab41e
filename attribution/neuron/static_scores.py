"""The eight scores of the second paper, Section 4.1, and gradient times activation, for neurons of either site.

Each takes a neuron as coefficient m times value v and is the higher the more the neuron is held to matter:

    logprob_increase  lp(x + mv) − lp(x), nats            log_prob                  lp(mv), nats
    prob_increase     p(w|x + mv) − p(w|x)                value_norm                |v|
    coefficient       |m|                                 inverse_rank              1 / rank of w in U·direction(v)
    coefficient_norm  |m|·|v|                             coefficient_inverse_rank  |m| / rank
    grad_x_act        m · d lp / dm on the model itself, to first order what the coefficient adds

Ranks start at 1 for the highest score and leave out every bias: v stands alone. Only the first three carry a sign
about the target; grad_x_act does too.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.neuron.bounded_search import TopUnits, listed, top_units, transformed
from twinlens.attribution.neuron.increase import Units, dense_increases
from twinlens.attribution.neuron.readout import Readout
from twinlens.attribution.neuron.target_ranks import target_ranks
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel

WITHOUT_TARGET = ("value_norm", "coefficient", "coefficient_norm")
"""Scores of the neuron alone, whatever is explained."""
OF_ONE_TARGET = ("prob_increase", "inverse_rank", "coefficient_inverse_rank")
"""Scores that say nothing of how much likelier one output is than another."""
BOUNDED = ("logprob_increase", "log_prob", "prob_increase")
"""Scores of which the best neurons are found through an upper bound where the readout is linear."""
STATIC = ("value_norm", "coefficient", "inverse_rank", "coefficient_norm", "coefficient_inverse_rank")
SCORES = (*BOUNDED, *STATIC, "grad_x_act")


def best_neurons(
    readout: Readout,
    units: Units,
    score: str,
    top_k: int,
    memory_budget: int,
    gradient: Tensor | None = None,
    ranks: Tensor | None = None,
    known: TopUnits | None = None,
) -> TopUnits:
    """The `top_k` best neurons of every example by any of the nine scores, ties to the lower layer and unit.

    Args:
        gradient: for grad_x_act, see `dense_scores`.
        ranks: of the targets where they are known, see `dense_scores`.
        known: a shorter list by the same score, whose neurons need not be scored again.
        memory_budget: bytes; results do not depend on it.

    Raises:
        UserError: an unknown score, or too small a budget.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.logprob_increase import ffn_units
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> from twinlens.attribution.neuron.static_scores import best_neurons
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> readout, units = readout_of(model, states, batch["labels"]), ffn_units(model, states)
        >>> best_neurons(readout, units, "coefficient_norm", 2, BUDGET).score.round(decimals=2)
        tensor([[1.6600, 1.1100],
                [1.1600, 1.0200]])
    """
    if score in BOUNDED and readout.linear:
        return top_units(readout, units, top_k, memory_budget, score, known)
    n_units, n_positions = units.coefficient.shape[2:]
    kept_scores, kept_places = [], []
    for layer, found in dense_scores(readout, units, score, memory_budget, gradient, ranks):
        if units.routed:
            found = found.masked_fill(units.coefficient[:, layer] == 0, -torch.inf)
        # the best of each layer hold the best of all
        ordered, place = found.flatten(1).sort(dim=1, descending=True, stable=True)
        kept_scores.append(ordered[:, :top_k])
        kept_places.append(place[:, :top_k] + layer * n_units * n_positions)
    scores, places = torch.cat(kept_scores, 1), torch.cat(kept_places, 1)
    evaluated = torch.full_like(readout.target, units.n_layers * n_units * n_positions)
    rest = scores.new_full((len(scores),), -torch.inf)
    return listed(scores, places, top_k, n_units, n_positions, units.positional, rest, evaluated)


def dense_scores(
    readout: Readout,
    units: Units,
    score: str,
    memory_budget: int,
    gradient: Tensor | None = None,
    ranks: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """A score of every neuron, one layer at a time: (layer, [batch, units, positions]).

    Args:
        gradient: of the log-probability by the MLP outputs, [batch, layers, hidden] (`gradients`); grad_x_act alone.
        ranks: of the examples' targets, [batch, layers, units] (`target_ranks`); None: they are computed where the
            score reads them.

    Raises:
        UserError: an unknown score; grad_x_act without a gradient (attention neurons have none).
    """
    if score not in SCORES:
        raise UserError(f"unknown neuron score '{score}'; expected one of {', '.join(SCORES)}.")
    if score in BOUNDED:
        yield from _from_increases(readout, units, score, memory_budget)
        return
    if score == "grad_x_act" and (gradient is None or units.positional):
        raise UserError(
            "the score 'grad_x_act' is defined for FFN neurons alone; expected site=ffn: use logprob_increase for "
            "attention neurons."
        )
    targets, own = readout.target.unique(return_inverse=True)
    for layer in range(units.n_layers):
        values, coefficient = units.values(layer), units.coefficient[:, layer].to(readout.dtype)
        if gradient is not None and score == "grad_x_act":
            slope = gradient[:, layer].to(readout.dtype) @ values.to(readout.dtype).T
            yield layer, coefficient * slope[..., None]
            continue
        found = coefficient.abs() if "coefficient" in score else torch.ones_like(coefficient)
        if "norm" in score:
            found = found * values.to(readout.dtype).norm(dim=-1)[:, None]
        if "rank" in score:
            rank = target_ranks(readout, values, targets, memory_budget)[own] if ranks is None else ranks[:, layer]
            found = found / rank[..., None]
        yield layer, found


def _from_increases(readout: Readout, units: Units, score: str, memory_budget: int) -> Iterator[tuple[int, Tensor]]:
    if score == "log_prob":
        units = units.at_origin()
    for layer, increase in dense_increases(readout, units, memory_budget):
        log_prob = readout.log_prob(units.base[:, layer].to(readout.dtype))
        yield layer, transformed(increase, log_prob[:, None, None], score)


def gradients(model: ResidualModel, batch: Batch, cotangent: Tensor, memory_budget: int) -> Tensor:
    """Gradient of ⟨cotangent, scores⟩ by the MLP outputs at the answer position, [batch, layers, hidden].

    Args:
        cotangent: gradient of what is explained at the model's scores, [batch, outputs] (`Explained.cotangent`).

    Raises:
        UserError: when the budget does not hold one sentence.
    """
    each = model.bytes_per_gradient(batch["attention_mask"].shape[1])
    step = memory_budget // each
    if step < 1:
        raise UserError(
            f"memory_budget is {bytes_in_words(memory_budget)}, but one sentence's gradient needs "
            f"{bytes_in_words(each)}; expected more than that: raise memory_budget or shorten the sentences."
        )
    parts = []
    for start in range(0, len(cotangent), step):
        rows = {name: batch[name][start : start + step] for name in ("input_ids", "attention_mask")}
        parts.append(model.mlp_gradient(rows, cotangent[start : start + step]))
    return torch.cat(parts)
