"""The linear layers of a model by name, whatever class implements them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import LinearLayer
from twinlens.models.expert_layers import expert_layers

ALL = "all"


def linear_layers(model: nn.Module, head: nn.Module, params: str) -> list[LinearLayer]:
    """The layers whose parameters an instance method differentiates, in the order of the model's modules.

    nn.Linear and GPT-2's Conv1D count, wherever they lie: fused and separate projections of queries, keys and values,
    MLPs, the classification head, adapters such as LoRA's, which are linear layers of their own, and the matrices of
    every expert of transformers' experts interface (`expert_layers`); `coverage` tells what they leave out, routers and
    experts of other forms among it. A readout over the vocabulary is left out of `all`: it shares its weights with the
    embedding in most models, and its gradient has vocabulary × hidden numbers; a pattern can name it.

    Args:
        model: the whole model.
        head: its readout.
        params: `all`, or a glob pattern over dotted names (`*.mlp.*`, `*.h.11.*`), several with commas between them.

    Raises:
        UserError: if no layer matches, with some of those that there are.
    """
    found: list[LinearLayer] = []
    around = used_around(model)
    for name, module in model.named_modules():
        found += expert_layers(name, module, block_of(name))
        if not is_plain(module) or module in around:
            continue
        d_in, d_out = projection_shape(module)
        found.append(LinearLayer(name, module, d_in, d_out, module.bias is not None, block_of(name)))
    if params == ALL:
        vocabulary = max((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), default=inf)
        return [layer for layer in found if layer.module is not head or layer.d_out < vocabulary]
    patterns = [pattern.strip() for pattern in params.split(",")]
    chosen = [layer for layer in found if any(fnmatchcase(layer.name, pattern) for pattern in patterns)]
    if not chosen:
        shown = ", ".join(layer.name for layer in found[:8]) + (" …" if len(found) > 8 else "")
        raise UserError(
            f"params={params} matches no linear layer; expected head, weight, all or a pattern over the names {shown}: "
            "correct the pattern."
        )
    return chosen


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a linear map of its whole input, not one that a subclass cuts into groups."""
    # a layer whose weights are gathered from several processes has a class of its own around that of the model
    kind: Any = next(each for each in type(module).__mro__ if "saves_places" not in vars(each))
    return isinstance(module, nn.Linear | Conv1D) and _multiplies(kind)


@cache
@torch.no_grad()
def _multiplies(kind: Any) -> bool:
    """Whether a class of linear layers computes what its weight says, with a forward of its own as without (Falcon)."""
    if kind.forward in (nn.Linear.forward, Conv1D.forward):
        return True
    like = nn.Linear(3, 2)
    x = torch.linspace(-1, 2, 6).view(2, 3)
    expected = like(x)
    try:
        like.__class__ = kind
        return bool(torch.allclose(like(x), expected, atol=1e-6))
    except Exception:  # it needs more than a weight and a bias
        return False


_AROUND: WeakKeyDictionary[nn.Module, frozenset[nn.Module]] = WeakKeyDictionary()
"""Models that were tried, and what `used_around` found."""


def used_around(model: Any) -> frozenset[nn.Module]:
    """Linear layers whose weights a model reads without calling the layers, so that no hook sees what they read.

    Found in one forward over three tokens (Mamba's time steps are such layers); nothing is tried for models without
    values, or in parts.
    """
    weights = [weight for weight in model.parameters() if type(weight) is nn.Parameter and not weight.is_meta]
    if not hasattr(model, "config") or len(weights) < sum(1 for _ in model.parameters()):
        return frozenset()
    if model not in _AROUND:
        called: set[nn.Module] = set()
        layers = [module for module in model.modules() if is_plain(module)]
        handles = [module.register_forward_hook(lambda m, a, out: called.add(m)) for module in layers]
        ids = torch.ones(1, 3, dtype=torch.long, device=weights[0].device)
        training, needed = model.training, [weight.requires_grad for weight in weights]
        model.eval()
        try:
            with torch.no_grad():
                model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            rest: list[Any] = [module for module in layers if module not in called]
            _AROUND[model] = frozenset() if not rest else _reached(model, ids, rest)
        finally:
            model.train(training)
            for weight, before in zip(weights, needed, strict=True):
                weight.requires_grad_(before)
            for handle in handles:
                handle.remove()
    return _AROUND[model]


def _reached(model: Any, ids: Tensor, layers: list[Any]) -> frozenset[nn.Module]:
    """Those of some layers whose weights the scores depend on."""
    model.requires_grad_(False)
    own = [layer.weight.requires_grad_(True) for layer in layers]
    with torch.inference_mode(False), torch.enable_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        if not logits.requires_grad:
            return frozenset()
        found = torch.autograd.grad(logits.sum(), own, allow_unused=True)
    return frozenset(layer for layer, slope in zip(layers, found, strict=True) if slope is not None)


def projection_shape(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a projection; its weights are not read, which may lie on several devices."""
    return (module.in_features, module.out_features) if hasattr(module, "in_features") else (module.nx, module.nf)


def block_of(name: str) -> int | None:
    """Number of the decoder block in a dotted name, the first number there."""
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", f".{name}.")
    return int(numbers[0]) if numbers else None


@dataclass(frozen=True)
class Coverage:
    """Which of a model's parameters some linear layers hold.

    Attributes:
        covered: numbers in them.
        left_out: numbers in all other parameters, by what these are.
    """

    covered: int
    left_out: Mapping[str, int]

    def told(self) -> str:
        """For example `params cover 1000 of 1500 parameters (66.7 %); left out: 500 in embeddings`."""
        whole = self.covered + sum(self.left_out.values())
        share = f"params cover {self.covered} of {whole} parameters ({self.covered / whole:.1%})"
        rest = ", ".join(f"{count} in {what}" for what, count in self.left_out.items())
        return f"{share}; left out: {rest or 'none'}"

    def described(self) -> dict[str, Any]:
        """For method.yaml."""
        return {"covered_parameters": self.covered, "left_out_parameters": dict(self.left_out)}


def coverage(model: nn.Module, head: nn.Module, layers: Sequence[LinearLayer]) -> Coverage:
    """What `layers` of a model cover and leave out; a parameter that two modules share counts once.

    Args:
        model: the whole model.
        head: its readout.
        layers: of `linear_layers`.
    """
    inside: dict[int, int] = {}
    for layer in layers:
        for value in layer.module.parameters():
            if not layer.routed:
                inside[id(value)] = value.numel()
            else:  # of the numbers of all experts its own
                inside[id(value)] = inside.get(id(value), 0) + value.numel() // len(value)
    owner = {id(value): part for part in model.modules() for value in part.parameters(recurse=False)}
    covered, left_out = 0, Counter[str]()
    for value in model.parameters():
        here = inside.get(id(value), 0)
        covered += here
        if here < value.numel():
            left_out[_kind(owner[id(value)], value, head)] += value.numel() - here
    return Coverage(covered, dict(left_out.most_common()))


def _kind(module: nn.Module, value: nn.Parameter, head: nn.Module) -> str:
    """What a parameter outside of the chosen linear layers is."""
    name = type(module).__name__
    if isinstance(module, nn.Embedding):
        return "embeddings"
    if module is head:
        return "the readout"
    if is_plain(module):
        return "linear layers that params does not name, or that are read without being called"
    if value.dim() > 2:
        return f"{name} ({value.dim()}-D, experts that params does not name, or no linear layer)"
    return f"norms ({name})" if "norm" in name.lower() else f"{name} (no linear layer)"
