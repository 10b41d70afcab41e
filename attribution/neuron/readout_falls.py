"""Falls of φ when neurons are switched off, linear up to what leaves the last block and exact behind it.

Without neuron n the residual stream x that leaves the last block becomes, to first order, x − (a_n − r_n) · ∂x/∂a_n.
What is behind it, the last norm, the readout and the softmax, is computed anew for every neuron: these pieces saturate
most. A prediction that the model is sure of has hardly a gradient there, although it would fall far.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twinlens.attribution.neuron.joint import edits_of, masks_at, widths_of
from twinlens.attribution.neuron.path_integral import Target
from twinlens.attribution.protocols import AnswerStates, NeuronModel


def readout_falls(
    model: NeuronModel,
    states: AnswerStates,
    target: Target,
    site: str,
    replacement: Tensor | None,
    memory_budget: int,
) -> dict[str, Tensor]:
    """φ less φ without each neuron, by site, [batch, layers, units], in the unit of φ.

    Args:
        states: of the batch.
        target: what φ is.
        site: `ffn`, `attn` or `both`.
        replacement: what FFN neurons become, broadcastable to [sequences, layers, neurons]; None: 0. Attention neurons
            become 0.
        memory_budget: bytes; results do not depend on it.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.path_integral import Target
        >>> from twinlens.attribution.neuron.readout_falls import readout_falls
        >>> model, batch = ExampleNeuronModel(), example_batch()
        >>> target = Target(batch["labels"], "log_prob")
        >>> found = readout_falls(model, model.states(batch), target, "ffn", None, BUDGET)
        >>> {site: tuple(falls.shape) for site, falls in found.items()}
        {'ffn': (2, 2, 5)}
    """
    widths, n_sequences, hidden = widths_of(model, site), len(states.activation), states.residual.shape[-1]
    room = memory_budget - model.bytes_of_states(states)
    of_layer = n_sequences * bytes_of_layer(hidden, sum(widths.values()))
    at_once = max(1, min(model.n_layers, room // 2 // of_layer))
    found: dict[str, list[Tensor]] = {name: [] for name in widths}
    for first in range(0, model.n_layers, at_once):
        layers = range(first, min(model.n_layers, first + at_once))
        left = room - len(layers) * of_layer
        slopes = stream_slopes(model, states, layers, site, replacement, left)
        for name, of_site in slopes.items():
            found[name] += [_falls(model, states, target, moved, left) for moved in of_site.unbind(1)]
    return {name: torch.stack(falls, 1) for name, falls in found.items()}


def stream_slopes(
    model: NeuronModel,
    states: AnswerStates,
    layers: Sequence[int],
    site: str,
    replacement: Tensor | None,
    memory_budget: int,
) -> dict[str, Tensor]:
    """(a_n − r_n) · ∂x/∂a_n of what leaves the last block, by site, [sequences, layers, units, hidden].

    One copy of the answer token for every dimension of x, each with a backward of its own.

    Args:
        layers: whose neurons are asked about.
    """
    widths, n_sequences, hidden = widths_of(model, site), len(states.activation), states.residual.shape[-1]
    per_row = model.bytes_per_row(states, 0) + n_sequences * 12 * len(layers) * sum(widths.values())
    step = max(1, min(hidden, (memory_budget - model.bytes_per_chunk(states, 0)) // per_row))
    parts: dict[str, list[Tensor]] = {name: [] for name in widths}
    for start in range(0, hidden, step):
        dims = torch.arange(start, min(hidden, start + step), device=states.residual.device)
        masks = masks_at(torch.ones(n_sequences, len(dims), device=dims.device), layers, widths)
        leaves = [mask for of_site in masks.values() for mask in of_site.values()]
        with torch.enable_grad():
            edits = edits_of(masks, replacement)
            leaving = model.leaving_edits(states, edits["ffn"], len(dims), edits["attn"])
            own = leaving.gather(2, dims[None, :, None].expand(n_sequences, -1, 1))
            slopes = iter(torch.autograd.grad(own.sum(), leaves))
        for name in widths:
            parts[name].append(torch.stack([next(slopes) for _ in layers], 1).transpose(2, 3))
    return {name: torch.cat(chunks, 3) for name, chunks in parts.items()}


def bytes_of_layer(hidden: int, units: int) -> int:
    """Slopes of one layer's neurons, as they are joined."""
    return 8 * hidden * units


@torch.no_grad()
def _falls(model: NeuronModel, states: AnswerStates, target: Target, moved: Tensor, memory_budget: int) -> Tensor:
    """φ less φ where the stream has lost `moved` [sequences, units, hidden], [batch, units].

    Every block has one row more, which nothing is taken from, so that the same arithmetic stands on both sides.
    """
    leaving, nobody = states.residual[:, -1:], [None] * model.n_layers
    step = max(1, memory_budget // max(1, model.bytes_per_row(states, model.n_layers)) - 1)
    parts = []
    for start in range(0, moved.shape[1], step):
        lost = moved[:, start : start + step]
        rows = torch.cat([leaving, (leaving - lost).to(leaving.dtype)], 1)
        phi = target.of(model.score_rows(states, [*nobody, rows]))
        parts.append(phi[:, :1] - phi[:, 1:])
    return torch.cat(parts, 1)
