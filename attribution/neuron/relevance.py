"""Relevance propagation at the answer token: the gradient of φ with norms, attention weights and activations held.

Of the model every piece that is not linear becomes a constant of this example (Jafari et al. 2025, arXiv 2508.21258):

    LN-rule        x / s(x): the norm's statistic s is held
    AH-rule        A · V: the attention weights A are held, so that relevance goes through the values alone
    Identity-rule  act(z) = z · [act(z) / z]: the ratio is held
    Half-rule      act(g) · u: half of the relevance goes to either factor, by the Identity-rule for g

What is left is linear from the neurons of the answer token to φ, and a pass from the last block to the first gives the
coefficient c_n of each. Nothing above is named after a family: `ResidualModel` has the rows by
which neurons read and write the residual stream, and by what each norm divides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.neuron.explained import Explained
from twinlens.attribution.residual_protocol import ResidualModel, ResidualStates


def relevance_coefficients(model: ResidualModel, part: Explained) -> tuple[Tensor, Tensor]:
    """c of every neuron of the answer token for what is explained of the examples, in nats per unit of its activation.

    Args:
        part: examples with states that have attention weights and values.

    Returns:
        of FFN neurons [batch, layers, neurons], and of attention neurons [batch, layers, heads · head_dim], inputs of
        the attention's output projection.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.explained import explain
        >>> from twinlens.attribution.neuron.relevance import relevance_coefficients
        >>> model = ExampleResidualModel()
        >>> ((_, part, _),) = explain(model, example_batch(), "corrected", True, BUDGET)
        >>> ffn, attention = relevance_coefficients(model, part)
        >>> ffn.shape, attention.shape
        (torch.Size([2, 2, 5]), torch.Size([2, 2, 4]))
    """
    states, coefficient = part.states, final_gradient(part)
    of_ffn, of_attention = [], []
    for layer in reversed(range(model.n_layers)):
        written = coefficient @ model.values(layer).to(coefficient).T
        of_ffn.append(_scaled(written, states.mlp_scale, layer))
        read = _through_mlp(model, states, layer, of_ffn[-1])
        # a parallel MLP reads what enters the block, as the attention does
        behind = coefficient if model.parallel else coefficient + read
        written = behind @ model.attention_values(layer).to(coefficient).T
        of_attention.append(_scaled(written, states.attention_scale, layer))
        coefficient = coefficient + read + _through_values(model, states, layer, of_attention[-1])
    return torch.stack(of_ffn[::-1], 1), torch.stack(of_attention[::-1], 1)


def mixed_values(model: ResidualModel, states: ResidualStates) -> Tensor:
    """Attention neurons of the answer token, weights · values over all tokens, [batch, layers, heads · head_dim]."""
    assert states.attention is not None
    assert states.value is not None
    layers = [
        torch.einsum(
            "bhp,bhpd->bhd",
            states.attention[:, layer].to(states.value.dtype),
            states.value[:, layer].repeat_interleave(model.n_heads // model.n_key_heads, 1),
        )
        for layer in range(model.n_layers)
    ]
    return torch.stack(layers, 1).flatten(2)


def final_gradient(part: Explained) -> Tensor:
    """Gradient of φ by what leaves the last block, with the final norm's statistic held, [batch, hidden]."""
    with torch.enable_grad():
        leaving = part.states.residual[:, -1].detach().to(part.readout.dtype).requires_grad_()
        return torch.autograd.grad(part.readout.log_prob(leaving).sum(), leaving)[0]


def _scaled(coefficient: Tensor, scale: Tensor | None, layer: int) -> Tensor:
    """Coefficients through the factor behind a projection, [batch, units]."""
    return coefficient if scale is None else coefficient * scale[:, layer, None].to(coefficient)


def _through_mlp(model: ResidualModel, states: ResidualStates, layer: int, coefficient: Tensor) -> Tensor:
    """From FFN neurons [batch, neurons] to what the MLP reads of the residual stream, [batch, hidden]."""
    entering = states.residual[:, layer]
    entering = (entering if model.parallel else entering + states.attention_output[:, layer]).to(coefficient)
    rows, constant = model.mlp_keys(layer, torch.arange(model.n_neurons, device=entering.device))
    rows, statistic = rows.to(coefficient), model.mlp_statistic(layer, entering).to(coefficient)[:, None]
    values = [
        entering @ rows[:, factor].T / statistic + constant[:, factor].to(coefficient)
        for factor in range(rows.shape[1])
    ]
    held = _ratio(model, layer, values[-1])  # of a gated MLP the gate is the second factor
    shares = [held] if len(values) == 1 else [held * values[1] / 2, held * values[0] / 2]
    read = torch.zeros_like(entering)
    for factor, share in enumerate(shares):
        read += (coefficient * share) @ rows[:, factor]
    return read / statistic


def _ratio(model: ResidualModel, layer: int, values: Tensor) -> Tensor:
    """act(z) / z, [batch, neurons], at 0 as just beside it."""
    tiny = torch.finfo(values.dtype).tiny ** 0.5
    values = torch.where(values.abs() < tiny, tiny, values)
    return model.activate(layer, values) / values


def _through_values(model: ResidualModel, states: ResidualStates, layer: int, coefficient: Tensor) -> Tensor:
    """From attention neurons [batch, heads · head_dim] through the answer token's own values, weighted by how far it
    attends to itself, to the residual stream, [batch, hidden]."""
    assert states.attention is not None
    weights = states.attention[:, layer]  # [batch, heads, tokens]
    own = weights.gather(2, states.position[:, None, None].expand(-1, weights.shape[1], 1))
    coefficient = coefficient * own.expand(-1, -1, model.head_dim).flatten(1).to(coefficient)
    entering = states.residual[:, layer].to(coefficient)
    rows, _ = model.attention_keys(layer, torch.arange(coefficient.shape[1], device=entering.device))
    statistic = model.attention_statistic(layer, entering).to(coefficient)
    return coefficient @ rows[:, 0].to(coefficient) / statistic[:, None]
