"""Naive forms of φ as a function of how far each neuron of the answer token is on: hooks on full forwards, autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles_neuron import forward_scores
from twinlens.models.last_token import LastTokenEngine

Masks = Mapping[str, Tensor]
"""m by site, `ffn` and `attn`, [layers, units]."""


def ones(engine: Any, site: str, value: float = 1.0) -> dict[str, Tensor]:
    """m of a site's neurons, all the same, to be differentiated by."""
    widths = {"ffn": engine.n_neurons, "attn": engine.n_attention}
    chosen = ("ffn", "attn") if site == "both" else (site,)
    return {name: torch.full((engine.n_layers, widths[name]), value).requires_grad_() for name in chosen}


@contextmanager
def masking(anatomy: Any, masks: Masks, off: Tensor | None = None) -> Iterator[None]:
    """The last token's neurons as r + m (a − r); `off` is r of FFN neurons, [layers, neurons], else 0."""
    with ExitStack() as hooks:
        for layer, block in enumerate(anatomy.blocks):
            parts = {"ffn": anatomy.down_projection(block), "attn": anatomy.attention_output(block)}
            for name, mask in masks.items():
                other = torch.zeros_like(mask[layer]) if off is None or name == "attn" else off[layer]

                def put(module: nn.Module, args: tuple, m: Tensor = mask[layer], r: Tensor = other) -> tuple:
                    rows = args[0].reshape(-1, args[0].shape[-1])
                    changed = torch.cat([rows[:-1], (r + m * (rows[-1] - r))[None]])
                    return (changed.reshape(args[0].shape), *args[1:])

                hooks.callback(parts[name].register_forward_pre_hook(put).remove)
        yield


def phi_of(scores: Tensor, target: int, against: int | None) -> Tensor:
    """log p of the target, less that of another output; of scores [outputs]."""
    log_prob = scores.log_softmax(-1)
    return log_prob[target] if against is None else log_prob[target] - log_prob[against]


def masked_phi(
    engine: LastTokenEngine,
    sequences: Sequence[dict[str, Tensor]],
    edited: Sequence[int],
    masks: Masks,
    asked: tuple[int, int | None],
    off: Tensor | None = None,
) -> Tensor:
    """φ(m) of one example, whose edited sequences share m; several sequences are the choices of a question."""
    parts = []
    for number, sequence in enumerate(sequences):
        with masking(engine.anatomy, masks if number in edited else {}, off):
            parts.append(forward_scores(engine, sequence))
    return phi_of(torch.cat(parts), *asked)


def joint_loop(
    engine: LastTokenEngine,
    sequences: Sequence[dict[str, Tensor]],
    edited: Sequence[int],
    site: str,
    points: tuple[Tensor, Tensor],
    asked: tuple[int, int | None],
    off: Tensor | None = None,
) -> dict[str, Tensor]:
    """Σ_k w_k ∂φ/∂m at m = α_k, by site, one forward and backward for each point."""
    total: dict[str, Tensor] = {}
    for node, weight in zip(*(part.tolist() for part in points), strict=True):
        masks = ones(engine, site, node)
        with torch.enable_grad():
            slopes = torch.autograd.grad(masked_phi(engine, sequences, edited, masks, asked, off), list(masks.values()))
        for name, slope in zip(masks, slopes, strict=True):
            total[name] = total.get(name, torch.zeros_like(slope)) + weight * slope
    return total


def readout_loop(
    engine: LastTokenEngine,
    sequences: Sequence[dict[str, Tensor]],
    edited: Sequence[int],
    site: str,
    asked: tuple[int, int | None],
    off: Tensor | None = None,
) -> Tensor:
    """φ less φ without each neuron of a site, [layers, units]: what leaves the last block is moved to first order by a
    gradient of each of its entries, and norm and readout follow, neuron by neuron."""
    anatomy = engine.anatomy
    leaving, moved, scores = [], [], []
    for number, sequence in enumerate(sequences):
        masks, seen = ones(engine, site), []

        def keep(module: nn.Module, args: tuple, output: Any, seen: list = seen) -> None:
            seen.append((output[0] if isinstance(output, tuple) else output).reshape(-1, engine_width(engine))[-1])

        with masking(anatomy, masks, off), ExitStack() as hooks, torch.enable_grad():
            hooks.callback(anatomy.blocks[-1].register_forward_hook(keep).remove)
            scores.append(forward_scores(engine, sequence).detach())
        slopes = [torch.autograd.grad(entry, masks[site], retain_graph=True)[0] for entry in seen[0]]
        leaving.append(seen[0].detach())
        moved.append(torch.stack(slopes, -1) * (number in edited))  # [layers, units, hidden]

    @torch.no_grad()
    def phi(layer: int, unit: int, share: float) -> float:
        parts = [
            engine.head(anatomy.final_norm((x - share * lost[layer, unit])[None]))[0] if number in edited else own
            for number, (x, lost, own) in enumerate(zip(leaving, moved, scores, strict=True))
        ]
        return float(phi_of(torch.cat(parts), *asked))

    n_layers, n_units = moved[0].shape[:2]
    before = phi(0, 0, 0.0)
    return torch.tensor([[before - phi(layer, unit, 1.0) for unit in range(n_units)] for layer in range(n_layers)])


def engine_width(engine: LastTokenEngine) -> int:
    """Of the residual stream."""
    return engine.anatomy.hidden_size


@contextmanager
def held(anatomy: Any) -> Iterator[None]:
    """Whatever is not linear in transformers' own modules as constants of the example, by the rules of RelP."""
    backbone, softmax = anatomy.backbone, nn.functional.softmax
    usual = backbone.config._attn_implementation
    with ExitStack() as hooks:
        for module in backbone.modules():
            name = type(module).__name__
            if isinstance(module, nn.LayerNorm):
                hooks.callback(module.register_forward_hook(_layer_norm).remove)
            elif name.endswith("RMSNorm"):
                hooks.callback(module.register_forward_hook(_rms_norm).remove)
            elif any(name.startswith(kind) for kind in ("GELU", "NewGELU", "PytorchGELU", "SiLU", "ReLU", "BloomGelu")):
                hooks.callback(module.register_forward_hook(_ratio).remove)
        if hasattr(anatomy.blocks[0], "mlp") and hasattr(anatomy.blocks[0].mlp, "gate_proj"):
            for block in anatomy.blocks:
                hooks.callback(block.mlp.down_proj.register_forward_pre_hook(_half).remove)
        nn.functional.softmax = lambda *args, **kwargs: softmax(*args, **kwargs).detach()  # type: ignore[assignment]
        backbone.set_attn_implementation("eager")
        try:
            yield
        finally:
            nn.functional.softmax = softmax  # type: ignore[assignment]
            backbone.set_attn_implementation(usual)


def _layer_norm(module: Any, args: tuple, output: Tensor) -> Tensor:
    x = args[0]
    deviation = (x.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt().detach()
    return (x - x.mean(-1, keepdim=True)) / deviation * module.weight + module.bias


def _rms_norm(module: Any, args: tuple, output: Tensor) -> Tensor:
    x = args[0]
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    scale = module.weight + (1 if type(module).__name__.startswith("Gemma") else 0)
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt().detach() * scale


def _ratio(module: Any, args: tuple, output: Tensor) -> Tensor:
    return args[0] * (output / args[0]).detach()


def _half(module: Any, args: tuple) -> tuple:
    return (args[0] / 2 + (args[0] / 2).detach(),)
