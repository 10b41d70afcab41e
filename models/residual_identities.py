"""The residual engine checks itself against the model's own forward before anybody relies on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.residual_protocol import LayerStates, ResidualStates
from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy import Anatomy, MissingPart
from twinlens.models.anatomy_check import require_equal
from twinlens.models.forwards import backbone_arguments
from twinlens.models.norms import wide
from twinlens.models.residual import ResidualEngine


@torch.no_grad()
def build_residual(
    anatomy: Anatomy, readout: Callable[[Tensor], Tensor], tolerance: float | None = None, vocabulary: bool = False
) -> ResidualEngine:
    """The verified engine over a backbone and its readout.

    Runs three tokens and checks in every layer: attention weights · value vectors · output rows + bias = attention
    output; keys reproduce value vectors and FFN coefficients from the residual stream; norms in their frozen form = the
    model's own. A model that lacks a part, such as written-out attention weights, serves what needs none: what reads it
    is not checked, and refused when it is asked for. `tolerance` is relative to the largest entry; None allows for
    rounding.

    Raises:
        UserError: naming the identity and the layer that fails.
    """
    engine = ResidualEngine(anatomy, readout, vocabulary)
    parameter = next(anatomy.backbone.parameters())
    ids = torch.arange(1, 4, device=parameter.device)[None] % anatomy.config.vocab_size
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if tolerance is None:
        tolerance = max(1e-4, 16 * torch.finfo(parameter.dtype).eps)
    try:
        states = engine.states(batch)
    except MissingPart:
        states = engine.states(batch, attention=False)
    layers: list[LayerStates] = []
    engine.stream(batch, layers.append)
    for seen in layers:
        check_writes(engine, seen, tolerance)
        if states.attention is not None:
            check_attention(engine, states, seen, tolerance)
        with suppress(MissingPart):
            check_mlp(engine, seen, tolerance)
    final = states.residual[:, -1]
    got = engine.final_direction(final) / states.statistic[:, None]
    got = got if engine.final_bias is None else got + engine.final_bias
    arguments = backbone_arguments(anatomy.backbone, batch)
    own = anatomy.backbone(**arguments, use_cache=False).last_hidden_state[:, -1]
    check(got, own, "frozen final norm = backbone output", engine.n_layers - 1, anatomy, tolerance)
    return engine


def check_writes(engine: ResidualEngine, seen: LayerStates, tolerance: float) -> None:
    """Coefficients times values, with the norm behind them frozen, and what its bias adds, are the MLP's output."""
    layer, anatomy, behind = seen.layer, engine.anatomy, engine.mlp_behind[seen.layer]
    if seen.mlp_scale is None:
        return
    got = wide(seen.activation) @ wide(engine.values(layer))
    constant = anatomy.constant(layer)
    if isinstance(constant, Tensor):
        got = got + behind.directions(wide(constant)).reshape(-1, got.shape[-1])
    got = got * seen.mlp_scale[..., None]
    if behind.norm is not None and behind.norm.bias is not None:
        got = got + behind.norm.bias * behind.writing.scale
    check(got, seen.mlp_output, "activation · values through the frozen norm = MLP output", layer, anatomy, tolerance)


def check_attention(engine: ResidualEngine, states: ResidualStates, seen: LayerStates, tolerance: float) -> None:
    """Attention weights, value vectors and output rows of one layer give its output, and its keys its values."""
    assert states.attention is not None
    assert states.value is not None
    layer, anatomy = seen.layer, engine.anatomy
    value = states.value[:, layer].repeat_interleave(engine.n_heads // engine.n_key_heads, 1)
    context = torch.einsum("bhp,bhpj->bhj", states.attention[:, layer], value)
    block = anatomy.blocks[layer]
    output: Any = anatomy.attention_output(block)
    got = context.flatten(1) @ projection_rows(output)
    got = anatomy.attention_write(layer)(got if output.bias is None else got + output.bias)
    check(got, states.attention_output[:, layer], "attention · values · output rows", layer, anatomy, tolerance)

    units = torch.arange(engine.n_heads * engine.head_dim, device=value.device)
    with suppress(MissingPart):
        rows, constant = engine.attention_keys(layer, units)
        statistic = engine.attention_statistic(layer, seen.residual)
        got = seen.residual.to(rows.dtype) @ rows[:, 0].T / statistic[..., None] + constant[:, 0]
        expected = value.transpose(1, 2).flatten(2)
        check(got, expected, "residual · attention keys = values", layer, anatomy, tolerance)


def check_mlp(engine: ResidualEngine, seen: LayerStates, tolerance: float) -> None:
    """The keys of one layer's FFN neurons give their coefficients at every token."""
    layer, anatomy = seen.layer, engine.anatomy
    rows, constant = engine.mlp_keys(layer, torch.arange(engine.n_neurons, device=seen.residual.device))
    entering = seen.residual if engine.parallel else seen.residual + seen.attention_output
    statistic = engine.mlp_statistic(layer, entering)
    factors = torch.einsum("btd,nfd->btnf", entering.to(rows.dtype), rows) / statistic[..., None, None] + constant
    got = engine.activate(layer, factors[..., int(engine.gated)]) * (factors[..., 0] if engine.gated else 1)
    check(got, seen.activation, "residual · MLP keys = coefficients", layer, anatomy, tolerance)


def check(got: Tensor, expected: Tensor, identity: str, layer: int, anatomy: Anatomy, tolerance: float) -> None:
    """One identity, in the wider of the two types."""
    require_equal(got.to(expected.dtype), expected, identity, layer, anatomy, tolerance)
