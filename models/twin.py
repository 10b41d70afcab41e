"""A small model of the same kind as one without values: its configuration with all widths divided by one number."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import torch
from torch import nn

HEAD_WIDTH = 8
"""Numbers of one head in a twin: rotations of a quarter of them still have a pair to turn."""
LARGEST = 2**24
"""Numbers of a twin at most, those that no weight holds (masks) included."""
POSITIONS = 512
"""Positions of a twin at most, where they have weights."""
MOST = {"vocab_size": 64, "_token_id": 63, "experts": 4, "_per_tok": 2, "moe_k": 2, "n_group": 1, "topk_group": 1}
"""How names of settings end that count something → the most that a twin has."""
WIDTH = re.compile(r"(^|_)(size|dim|embd|inner|d_model|d_ff|d_kv|rank|width)$")
"""What widths are called in configurations …"""
NO_WIDTH = re.compile(r"vocab|window|chunk|kernel|block|patch|group|batch|state|image")
"""… and what else ends so."""
LAYERS = re.compile(r"(^|_)(n_layers?|layers?)$")


def described(backbone: Any) -> str:
    """The configuration that a twin is made of, as text; where it was read does not count."""
    kind, settings = type(backbone), backbone.config.to_dict()
    settings.pop("_name_or_path", None)
    return f"{kind.__module__}.{kind.__qualname__} {json.dumps(settings, sort_keys=True, default=str)}"


def twin_of(backbone: Any) -> Any | None:
    """A frozen random model of the same class, small enough to be looked into; None: it does not become small.

    It has as many heads and a block of each kind. Its weights are large enough for every part to matter. Random numbers
    elsewhere do not change.

    Args:
        backbone: the transformers base model; only its configuration and the names of its modules are read.
    """
    config = copy.deepcopy(backbone.config)
    config._experts_implementation = "eager"  # the faster ones ask for widths that suit a GPU
    text = config.get_text_config()
    _shrink(text, _divisor(text))
    _shorten(text, backbone)
    with torch.device("meta"):
        shapes = type(backbone)(copy.deepcopy(config))
    if sum(numbers.numel() for numbers in (*shapes.parameters(), *shapes.buffers())) > LARGEST:
        return None
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        twin = type(backbone)(config).eval().requires_grad_(False)
        for parameter in twin.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.25))
    return twin


def kind_of(block: nn.Module) -> tuple[Any, ...]:
    """Names and classes of a block's parts and names of its parameters, as they are without adapters."""
    modules = ((name, type(getattr(part, "base_layer", part)).__name__) for name, part in block.named_modules())
    weights = (name.replace(".base_layer", "") for name, _ in block.named_parameters())
    kept = [each for each in modules if ".lora_" not in each[0] and not each[0].endswith("base_layer")]
    return *kept, *(name for name in weights if ".lora_" not in name)


def _divisor(config: Any) -> int:
    """By what all widths are divided, so that every head keeps `HEAD_WIDTH` numbers; 1 where they cannot be."""
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return width // HEAD_WIDTH if isinstance(width, int) and width and width % HEAD_WIDTH == 0 else 1


def _shrink(config: Any, divisor: int) -> None:
    for name, value in config.to_dict().items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        most = next((number for end, number in MOST.items() if name.endswith(end)), None)
        if most is not None:
            setattr(config, name, min(value, most))
        elif name.endswith(("positions", "position_embeddings")) and not getattr(config, "rope_parameters", None):
            setattr(config, name, min(value, POSITIONS))
        elif WIDTH.search(name) and not NO_WIDTH.search(name):
            setattr(config, name, -(-value // divisor))


def _shorten(config: Any, backbone: Any) -> None:
    """As many blocks as it takes to have one of each kind, two at least; lists that count blocks are cut as well."""
    kinds = [kind_of(block) for block in longest_list(backbone)]
    count = max(2, max(kinds.index(kind) for kind in kinds) + 1)
    for name, value in config.to_dict().items() if count < len(kinds) else ():
        if LAYERS.search(name) and value == len(kinds):
            setattr(config, name, count)
        elif isinstance(value, list) and len(value) == len(kinds):
            setattr(config, name, value[:count])


def longest_list(backbone: nn.Module) -> nn.ModuleList:
    """The blocks of a decoder, as far as its modules show."""
    return max((part for part in backbone.modules() if isinstance(part, nn.ModuleList)), key=len)
