"""Naive loops for neuron-level knowledge attribution: one sentence without padding, one neuron at a time, float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy import Anatomy
from twinlens.models.forwards import backbone_arguments


@dataclass
class Parts:
    """One sentence taken apart, every entry float64: lists over layers."""

    entering: list[Tensor]  # [tokens, hidden]
    leaving: Tensor  # [tokens, hidden]
    attention_output: list[Tensor]  # [tokens, hidden]
    mlp_output: list[Tensor]  # [tokens, hidden]
    activation: list[Tensor]  # [tokens, neurons]
    attention: list[Tensor]  # [heads, tokens]: the answer token's row
    value: list[Tensor]  # [heads, tokens, head_dim]
    output: Tensor  # [tokens, width]


def parts_of(anatomy: Anatomy, ids: Tensor) -> Parts:
    """One plain forward with transformers' own attention weights; value rows as the families lay them out."""
    backbone, found = anatomy.backbone, Parts([], torch.empty(0), [], [], [], [], [], torch.empty(0))
    projected: list[Tensor] = []
    n_tokens = len(ids)

    def kept(into: list[Tensor]) -> Callable:
        return lambda m, a, out: into.append(out.detach().double().reshape(n_tokens, -1))

    handles = []
    for block in anatomy.blocks:
        handles += [
            block.register_forward_pre_hook(
                lambda m, a, kw: found.entering.append((a[0] if a else kw["hidden_states"]).double()[0]),
                with_kwargs=True,
            ),
            anatomy.attention_output(block).register_forward_hook(kept(found.attention_output)),
            anatomy.down_projection(block).register_forward_hook(kept(found.mlp_output)),
            anatomy.down_projection(block).register_forward_pre_hook(
                lambda m, a: found.activation.append(a[0].double().reshape(n_tokens, -1))
            ),
            value_module(anatomy, block).register_forward_hook(kept(projected)),
        ]
    usual = backbone.config._attn_implementation
    backbone.set_attn_implementation("eager")
    batch = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    output = backbone(**backbone_arguments(anatomy.backbone, batch), use_cache=False, output_attentions=True)
    backbone.set_attn_implementation(usual)
    for handle in handles:
        handle.remove()
    found.output = output.last_hidden_state[0].double()
    found.attention = [weights[0, :, -1].double() for weights in output.attentions]
    found.value = [
        torch.stack([values[:, value_rows(anatomy, head)] for head in range(heads(anatomy))]) for values in projected
    ]
    found.leaving = found.entering[-1] + found.attention_output[-1] + found.mlp_output[-1]
    return found


def heads(anatomy: Anatomy) -> int:
    config = anatomy.config
    return config.n_head if config.model_type in ("gpt2", "bloom") else config.num_attention_heads


def value_module(anatomy: Anatomy, block: Any) -> Any:
    kind = anatomy.config.model_type
    if kind == "gpt2":
        return block.attn.c_attn
    if kind == "gpt_neox":
        return block.attention.query_key_value
    return block.self_attention.query_key_value if kind == "bloom" else block.self_attn.v_proj


def value_rows(anatomy: Anatomy, head: int) -> Tensor:
    """Outputs of the value projection that are the head's value, [head_dim]."""
    config, n_heads = anatomy.config, heads(anatomy)
    size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    dims = torch.arange(size)
    if config.model_type == "gpt2":
        return 2 * config.n_embd + head * size + dims
    if config.model_type in ("gpt_neox", "bloom"):
        return head * 3 * size + 2 * size + dims
    repeats = n_heads // getattr(config, "num_key_value_heads", n_heads)
    return (head // repeats) * size + dims


def norm_map(module: Any, x: Tensor, frozen: Tensor | None = None, bias: bool = True) -> Tensor:
    """A norm written out, its statistic taken from `frozen` where given; a missing norm is the identity."""
    if module is None:
        return x
    origin = x if frozen is None else frozen
    if isinstance(module, torch.nn.LayerNorm):
        deviation = (origin.var(-1, unbiased=False) + module.eps).sqrt()
        out = (x - x.mean(-1, keepdim=True)) / deviation[..., None] * module.weight.double()
        return out + module.bias.double() if bias else out
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    return x / (origin.pow(2).mean(-1) + eps).sqrt()[..., None] * scale(module)


def scale(module: Any) -> Tensor:
    """What a norm multiplies each dimension with."""
    return module.weight.double() + (1 if type(module).__name__.startswith("Gemma") else 0)


def bs(anatomy: Anatomy, head: torch.nn.Linear, v: Tensor, final: Tensor, bias: bool = True) -> Tensor:
    """Scores before the softmax of one vector, norm frozen at `final`."""
    features = norm_map(anatomy.last_norm, v, final, bias)
    if anatomy.last_projection is not None:
        features = features @ anatomy.last_projection.weight.double().T
    scores = features @ head.weight.double().T
    return scores if head.bias is None else scores + head.bias.double()


def lp(anatomy: Anatomy, head: Any, v: Tensor, final: Tensor, target: int, bias: bool = True) -> float:
    return float(bs(anatomy, head, v, final, bias).log_softmax(-1)[target])


def ffn_score(
    anatomy: Anatomy, head: Any, parts: Parts, layer: int, unit: int, target: int, score: str, bias: bool = True
) -> float:
    """One of the eight scores of one FFN neuron."""
    row = projection_rows(anatomy.down_projection(anatomy.blocks[layer]))[unit].double()
    m = parts.activation[layer][-1, unit]
    x, final = parts.entering[layer][-1] + parts.attention_output[layer][-1], parts.leaving[-1]
    return neuron_score(anatomy, head, x, m, row, final, target, score, bias)


def neuron_score(
    anatomy: Anatomy, head: Any, x: Tensor, m: Tensor, row: Tensor, final: Tensor, target: int, score: str, bias: bool
) -> float:
    arguments = (final, target, bias)
    after, before = lp(anatomy, head, x + m * row, *arguments), lp(anatomy, head, x, *arguments)
    if score == "logprob_increase":
        return after - before
    if score == "prob_increase":
        return float(torch.tensor(after).exp() - torch.tensor(before).exp())
    if score == "log_prob":
        return lp(anatomy, head, m * row, *arguments)
    projected = norm_map(anatomy.last_norm, row, final, False)
    if anatomy.last_projection is not None:
        projected = projected @ anatomy.last_projection.weight.double().T
    scores = projected @ head.weight.double().T
    rank = 1 + int((scores > scores[target]).sum())
    norm, size = float(row.norm()), float(m.abs())
    return {
        "value_norm": norm,
        "coefficient": size,
        "inverse_rank": 1 / rank,
        "coefficient_norm": size * norm,
        "coefficient_inverse_rank": size / rank,
    }[score]


def head_vector(anatomy: Anatomy, parts: Parts, layer: int, head: int, position: int) -> Tensor:
    """What a head adds from one position, summed over its dimensions one by one."""
    size = parts.value[layer].shape[-1]
    rows = projection_rows(anatomy.attention_output(anatomy.blocks[layer])).double()
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for dim in range(size):
        total += attention_vector(anatomy, parts, layer, head, dim, position)
    return total


def attention_vector(anatomy: Anatomy, parts: Parts, layer: int, head: int, dim: int, position: int) -> Tensor:
    """What one attention neuron adds."""
    size = parts.value[layer].shape[-1]
    rows = projection_rows(anatomy.attention_output(anatomy.blocks[layer])).double()
    weight = parts.attention[layer][head, position] * parts.value[layer][head, position, dim]
    return weight * rows[head * size + dim]


def contributions(parts: Parts, layer: int, position: int, site: str, parallel: bool) -> list[tuple[str, int, Tensor]]:
    """All that entered the norm before a neuron, named, at one token."""
    found = [("embedding", 0, parts.entering[0][position])]
    for below in range(layer):
        found.append(("attention", below, parts.attention_output[below][position]))
        found.append(("mlp", below, parts.mlp_output[below][position]))
    if site == "ffn" and not parallel:
        found.append(("attention", layer, parts.attention_output[layer][position]))
    return found


def keys(anatomy: Anatomy, layer: int, unit: int, site: str) -> list[tuple[Tensor, float]]:
    """Weight row and bias of each projection that a neuron's coefficient is a function of."""
    block = anatomy.blocks[layer]
    if site == "attn":
        size = len(value_rows(anatomy, 0))
        modules, row = [value_module(anatomy, block)], int(value_rows(anatomy, unit // size)[unit % size])
    else:
        modules, row = [anatomy.up_projection(block)], unit
        if anatomy.gated:
            modules.append(block.mlp.gate_proj)
    return [
        (projection_rows(m)[:, row].double(), 0.0 if m.bias is None else float(m.bias[row].double())) for m in modules
    ]


def query_shares(
    anatomy: Anatomy, parts: Parts, layer: int, unit: int, position: int, site: str, corrected: bool
) -> tuple[dict[tuple[str, int], float], list[tuple[Tensor, float]]]:
    """Shares of all that a value neuron's key reads, and per key (the row seen from the residual stream, divisor).

    Sentences of the module `twinlens.attribution.neuron.query`, written out one inner product at a time.
    """
    block, parallel = anatomy.blocks[layer], anatomy.parallel
    norm: Any = anatomy.pre_attention_norm(block) if site == "attn" else anatomy.pre_mlp_norm(block)
    added = contributions(parts, layer, position, site, parallel)
    x = torch.stack([u for _, _, u in added]).sum(0)
    factors = keys(anatomy, layer, unit, site)
    if not corrected and site == "ffn" and anatomy.gated:
        factors = [(projection_rows(anatomy.down_projection(block))[unit].double(), 0.0)]
    shares: dict[tuple[str, int], float] = {}
    divisors = []
    for row, bias in factors:
        if corrected:
            products = {(kind, at): float(norm_map(norm, u, x, False) @ row) for kind, at, u in added}
            products["constant", 0] = float(norm_map(norm, 0 * x, x, True) @ row) + bias
            total = sum(products.values())
            divisor = (1 if total > 0 else -1) * sum(abs(v) for v in products.values())
        else:
            gamma = scale(norm)
            products = {(kind, at): float((gamma * u) @ row) for kind, at, u in added}
            divisor = sum(products.values())
        for name, product in products.items():
            shares[name] = shares.get(name, 0.0) + product / divisor / len(factors)
        divisors.append((row, divisor))
    return shares, divisors


def query_neuron_share(
    anatomy: Anatomy, parts: Parts, value: tuple[int, int, int], neuron: tuple[int, int], site: str, corrected: bool
) -> float:
    """Share of one FFN neuron (layer, unit) below a value neuron (layer, unit, position)."""
    layer, unit, position = value
    if neuron[0] >= layer:
        return 0.0
    block = anatomy.blocks[layer]
    norm: Any = anatomy.pre_attention_norm(block) if site == "attn" else anatomy.pre_mlp_norm(block)
    x = torch.stack([u for _, _, u in contributions(parts, layer, position, site, anatomy.parallel)]).sum(0)
    _, divisors = query_shares(anatomy, parts, layer, unit, position, site, corrected)
    row = projection_rows(anatomy.down_projection(anatomy.blocks[neuron[0]]))[neuron[1]].double()
    added = parts.activation[neuron[0]][position, neuron[1]] * row
    seen = norm_map(norm, added, x, False) if corrected else scale(norm) * added
    return sum(float(seen @ key) / divisor for key, divisor in divisors) / len(divisors)
