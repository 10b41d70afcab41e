"""Record of what a decoder is made of, as plain values for a file and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from twinlens.models.discovery import BlockParts, Heads, Mlp, Slice, Write
from twinlens.models.mixture import from_plain
from twinlens.models.structure import Structure


def plain_of(structure: Structure) -> dict[str, Any]:
    """A structure in lists, words and numbers; blocks that are made alike stand once."""
    parts = [None if block is None else _plain(asdict(block)) for block in structure.parts]
    kinds: list[Any] = []
    kinds += [block for place, block in enumerate(parts) if block not in parts[:place]]
    return {
        "blocks": structure.blocks,
        "norm": structure.norm,
        "projection": structure.projection,
        "kinds": kinds,
        "kind_of_block": [kinds.index(block) for block in parts],
    }


def structure_from(plain: Mapping[str, Any]) -> Structure:
    """The structure that `plain_of` has written."""
    kinds = [None if block is None else _block(block) for block in plain["kinds"]]
    parts = tuple(kinds[number] for number in plain["kind_of_block"])
    return Structure(plain["blocks"], plain["norm"], plain["projection"], parts)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _block(plain: Mapping[str, Any]) -> BlockParts:
    attention, mlp = (None if write is None else Write(**write) for write in (plain["attention"], plain["mlp"]))
    neurons, heads = plain["neurons"], plain["heads"]
    if neurons is not None:
        neurons = Mlp(**{**neurons, "up": _slice(neurons["up"]), "gate": _slice(neurons["gate"])})
    if heads is not None:
        heads = Heads(**{**heads, "values": _slice(heads["values"])})
    experts = from_plain(plain["experts"])
    return BlockParts(attention, mlp, plain["parallel"], neurons, heads, experts, plain["unread"])


def _slice(plain: Mapping[str, Any] | None) -> Any:
    if plain is None:
        return None
    outputs = plain["outputs"]
    return Slice(plain["module"], None if outputs is None else torch.tensor(outputs))
