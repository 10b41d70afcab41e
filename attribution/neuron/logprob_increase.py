"""Log-probability increase (second paper, Eq. 13): neurons of both sites, heads, heads at a position, layers.

Units: nats. Sign: positive, the part raises the target's log-probability. Each layer's attention is added to x_l, its
MLP to x_l + attention; where the MLP runs beside the attention (GPT-NeoX) it is added after it all the same, so that
the layers' increases sum to lp(h^L) − lp(h^0) on every model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.neuron.increase import Units, vector_increases
from twinlens.attribution.neuron.readout import Readout
from twinlens.attribution.residual_protocol import ResidualModel, ResidualStates

POINTS_AT_ONCE = 4
"""Points of a curve whose distributions are held together."""


def ffn_units(model: ResidualModel, states: ResidualStates) -> Units:
    """FFN neurons (l, n): a[l,q,n] · W_down[n] added to x_l + attention output."""
    coefficient = states.activation if states.mlp_scale is None else states.activation * states.mlp_scale[..., None]
    return Units(
        base=states.residual[:, :-1] + states.attention_output,
        coefficient=coefficient[..., None],
        values=model.values,
        positional=False,
        routed=model.experts is not None,
    )


def attention_units(model: ResidualModel, states: ResidualStates) -> Units:
    """Attention neurons (l, h·head_dim + j, p): A[l,h,q,p] · v[l,h,p,j] · W_o[h,j] added to x_l.

    Raises:
        ValueError: if the states were taken without attention.
    """
    return Units(
        base=states.residual[:, :-1],
        coefficient=torch.stack(
            [attention_coefficients(model, states, i).transpose(2, 3).flatten(1, 2) for i in range(model.n_layers)], 1
        ),
        values=model.attention_values,
        positional=True,
    )


def attention_coefficients(model: ResidualModel, states: ResidualStates, layer: int) -> Tensor:
    """A[l,h,q,p] · v[l,h,p,j] of a layer, [batch, heads, tokens, head_dim]; heads that share values repeat them."""
    if states.attention is None or states.value is None:
        raise ValueError("attention neurons need states(batch, attention=True).")
    value = states.value[:, layer].repeat_interleave(model.n_heads // model.n_key_heads, 1)
    scale = states.attention_scale
    value = value if scale is None else value * scale[:, layer, None, None, None]
    return states.attention[:, layer, ..., None] * value


def head_vectors(model: ResidualModel, states: ResidualStates, layer: int, by_position: bool = False) -> Tensor:
    """Vector that every head of a layer adds to the residual stream, output bias not included.

    Returns:
        [batch, heads, hidden], or [batch, heads, tokens, hidden] with `by_position`.
    """
    coefficient = attention_coefficients(model, states, layer)
    rows = model.attention_values(layer).unflatten(0, (model.n_heads, model.head_dim))
    if by_position:
        return torch.einsum("bhpj,hjd->bhpd", coefficient, rows)
    return torch.einsum("bhj,hjd->bhd", coefficient.sum(2), rows)


def head_increases(model: ResidualModel, states: ResidualStates, readout: Readout, memory_budget: int) -> Tensor:
    """lp(x_l + head) − lp(x_l), [batch, layers, heads]."""
    return _by_layer(model, states, readout, memory_budget, by_position=False)


def head_position_increases(
    model: ResidualModel, states: ResidualStates, readout: Readout, memory_budget: int
) -> Tensor:
    """lp(x_l + head at p) − lp(x_l), [batch, layers, heads, tokens]; 0 on padding."""
    return _by_layer(model, states, readout, memory_budget, by_position=True)


def _by_layer(
    model: ResidualModel, states: ResidualStates, readout: Readout, memory_budget: int, by_position: bool
) -> Tensor:
    layers = []
    for layer in range(model.n_layers):
        vectors = head_vectors(model, states, layer, by_position)
        flat = vectors.flatten(1, -2)[:, None]
        room = memory_budget - vectors.numel() * vectors.element_size()
        found = vector_increases(readout, states.residual[:, layer : layer + 1], flat, room)
        layers.append(found[:, 0].unflatten(1, vectors.shape[1:-1]))
    return torch.stack(layers, 1)


def layer_increases(states: ResidualStates, readout: Readout, memory_budget: int) -> tuple[Tensor, Tensor]:
    """Attention and MLP outputs, biases included, each [batch, layers]; together they sum to lp(h^L) − lp(h^0).

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.logprob_increase import layer_increases
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> readout = readout_of(model, states, batch["labels"])
        >>> attention, mlp = layer_increases(states, readout, BUDGET)
        >>> ends = readout.log_prob(states.residual[:, [0, -1]])
        >>> bool(((attention + mlp).sum(1) - (ends[:, 1] - ends[:, 0])).abs().max() < 1e-5)
        True
    """
    entering, between = states.residual[:, :-1], states.residual[:, :-1] + states.attention_output
    attention = vector_increases(readout, entering, states.attention_output[:, :, None], memory_budget)
    mlp = vector_increases(readout, between, states.mlp_output[:, :, None], memory_budget)
    return attention[..., 0], mlp[..., 0]


def segment_curve(states: ResidualStates, readout: Readout, segments: int = 61) -> Tensor:
    """lp along the straight line from h^0 to h^L (Figures 3 and 6), [batch, segments]; both ends included."""
    start, end = states.residual[:, 0].to(readout.dtype), states.residual[:, -1].to(readout.dtype)
    shares = torch.linspace(0, 1, segments, device=start.device, dtype=start.dtype)
    # a thin product reads the whole head: several points share one
    points = (start[:, None] + share[:, None] * (end - start)[:, None] for share in shares.split(POINTS_AT_ONCE))
    return torch.cat([readout.log_prob(point) for point in points], 1)
