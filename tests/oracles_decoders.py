"""Plain loops over transformers' own language models: one full forward for each score, hooks only.

Of twinlens they know which modules are the down- and output-projections, and no arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def logits_of(lm: Any, ids: Tensor) -> Tensor:
    """The model's own logits behind the last token of ids [tokens], [outputs]."""
    return lm(input_ids=ids[None], use_cache=False).logits[0, -1]


def path_integrals(lm: Any, projections: Sequence[nn.Module], ids: Tensor, target: int, n_steps: int) -> Tensor:
    """Integrated gradients of the target's probability by the inputs of projections at the last token, a right Riemann
    sum, [projections, units]."""
    return torch.stack([_path_integral(lm, module, ids, target, n_steps) for module in projections])


def _path_integral(lm: Any, module: nn.Module, ids: Tensor, target: int, n_steps: int) -> Tensor:
    clean: list[Tensor] = []
    with ExitStack() as hooks, torch.no_grad():
        hooks.callback(module.register_forward_pre_hook(lambda m, a: clean.append(last_of(a[0]))).remove)
        logits_of(lm, ids)
    total = torch.zeros_like(clean[0])
    for step in range(1, n_steps + 1):
        point = (clean[0] * (step / n_steps)).requires_grad_()

        def put(m: nn.Module, args: tuple, point: Tensor = point) -> tuple:
            rows = args[0].reshape(-1, args[0].shape[-1])
            return (torch.cat([rows[:-1], point[None]]).reshape(args[0].shape), *args[1:])

        with ExitStack() as hooks, torch.enable_grad():
            hooks.callback(module.register_forward_pre_hook(put).remove)
            probability = logits_of(lm, ids).softmax(-1)[target]
            (slope,) = torch.autograd.grad(probability, point)
        total += clean[0] * slope / n_steps
    return total


@torch.no_grad()
def scaled_scores(
    lm: Any, downs: Sequence[nn.Module], outputs: Sequence[nn.Module], ids: Tensor, factors: Tensor
) -> Tensor:
    """Logits behind a text whose last token has its neurons times each factor in all layers, and its attention neurons
    times one half, [factors, outputs]."""

    def times(factor: float) -> Callable[..., tuple]:
        def scale(module: nn.Module, args: tuple) -> tuple:
            rows = args[0].reshape(-1, args[0].shape[-1])
            return (torch.cat([rows[:-1], rows[-1:] * factor]).reshape(args[0].shape), *args[1:])

        return scale

    found = []
    for factor in factors.tolist():
        with ExitStack() as hooks:
            for module in (*downs, *outputs):
                own = times(factor if module in downs else 0.5)
                hooks.callback(module.register_forward_pre_hook(own).remove)
            found.append(logits_of(lm, ids))
    return torch.stack(found)


def last_of(tensor: Tensor) -> Tensor:
    """The last token's row of what modules pass on for one sequence, [width]."""
    return tensor.detach().reshape(-1, tensor.shape[-1])[-1].clone()


@torch.no_grad()
def seen_in(lm: Any, modules: Sequence[nn.Module], ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What modules read and write at the last token, [width] each."""
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        read = args[0] if args else kwargs["hidden_states"]
        found[module] = (last_of(read), last_of(output[0] if isinstance(output, tuple) else output))

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        logits_of(lm, ids)
    return [found[module] for module in modules]


def direction(norm: Any, vectors: Tensor) -> Tensor:
    """Linear part of a norm: of vectors so long that what it adds to their variance is nothing."""
    if norm is None:
        return vectors
    bias = getattr(norm, "bias", None)
    long = vectors * 1e6 / vectors.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    normed = norm(long) - (0 if bias is None else bias)
    middle = torch.linspace(1, 2, vectors.shape[-1]).to(vectors)
    centres = torch.allclose(norm(middle + 3), norm(middle), atol=1e-4)
    deviation = long - long.mean(-1, keepdim=True) if centres else long
    root = deviation.pow(2).mean(-1, keepdim=True).sqrt()
    return normed * root / 1e6 * vectors.abs().amax(-1, keepdim=True)


def statistic(norm: Any, vector: Tensor) -> Tensor:
    """By what a norm divides the linear part of a vector."""
    if norm is None:
        return torch.ones(())
    bias = getattr(norm, "bias", None)
    written = norm(vector[None])[0] - (0 if bias is None else bias)
    place = written.abs().argmax()
    return direction(norm, vector)[place] / written[place]


def increases(
    vectors: Tensor, base: Tensor, norm: Any, final: Tensor, behind: Callable[[Tensor], Tensor], target: int
) -> Tensor:
    """lp(base + vector) − lp(base) of vectors [..., hidden], the final norm frozen at the state `final`.

    Args:
        behind: from the final hidden state to logits, in double precision.
    """
    norm = None if norm is None else copy.deepcopy(norm).double()
    vectors, base, final = vectors.double(), base.double(), final.double()
    bias = getattr(norm, "bias", None)
    scale = statistic(norm, final)

    def log_prob(x: Tensor) -> Tensor:
        features = direction(norm, x) / scale
        return behind(features if bias is None else features + bias).log_softmax(-1)[..., target]

    return log_prob(base + vectors) - log_prob(base)


def gradient_products(lm: Any, weights: Sequence[nn.Parameter], texts: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Dot products of every two texts' gradients of the last token's cross-entropy, [texts, texts]."""
    gradients = []
    for ids, label in zip(texts, labels, strict=True):
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            loss = cross_entropy(logits_of(lm, ids)[None], label[None])
            found = torch.autograd.grad(loss, list(weights), allow_unused=True)
            for weight in weights:
                weight.requires_grad_(False)
        gradients.append(
            torch.cat(
                [
                    torch.zeros_like(w).flatten() if g is None else g.flatten()
                    for w, g in zip(weights, found, strict=True)
                ]
            )
        )
    stacked = torch.stack(gradients).double()
    return stacked @ stacked.T
