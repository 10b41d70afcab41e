"""Shards: the unit in which a pass is written, checked, resumed and merged.

A pass over n examples is cut into shards of rows before it starts, independent of how many processes run it. Each
shard becomes one safetensors file with a checksum, so that a killed pass redoes at most one and an altered file is
found when it is opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

PARTIAL_SUMS = "partial/"
"""Prefix of tensors that belong to the shard as a whole, not to its rows."""


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard_{number:06d}.safetensors"


def write_shard(folder: Path, number: int, tensors: Mapping[str, Tensor]) -> None:
    """Write one shard, whole or not at all."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial = folder / f".shard_{number:06d}.{os.getpid()}.partial"
    save_file(kept, partial, metadata={"sha256": _checksum(kept)})
    os.replace(partial, shard_path(folder, number))


def read_shard(folder: Path, number: int) -> dict[str, Tensor] | None:
    """The shard's tensors, or None where it is missing, truncated or altered."""
    path = shard_path(folder, number)
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            expected = (opened.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError):
        return None
    return tensors if expected == _checksum(tensors) else None


def missing_shards(folder: Path, count: int) -> list[int]:
    """Numbers of the shards that are still to be computed; damaged files are named and removed."""
    missing = []
    for number in range(count):
        if read_shard(folder, number) is None:
            path = shard_path(folder, number)
            if path.is_file():
                print(f"{path} is truncated or altered: it is computed again", flush=True)
                path.unlink()
            missing.append(number)
    return missing


def merge_shards(folder: Path, count: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """All rows in the order of `index`, and the shards' own tensors in the order of their numbers.

    Raises:
        FileNotFoundError: a shard is missing or damaged.
    """
    rows: list[dict[str, Tensor]] = []
    partials: list[dict[str, Tensor]] = []
    for number in range(count):
        tensors = read_shard(folder, number)
        if tensors is None:
            raise FileNotFoundError(shard_path(folder, number))
        partials.append(
            {name.removeprefix(PARTIAL_SUMS): t for name, t in tensors.items() if name.startswith(PARTIAL_SUMS)}
        )
        rows.append({name: t for name, t in tensors.items() if not name.startswith(PARTIAL_SUMS)})
    merged = {name: torch.cat([part[name] for part in rows]) for name in rows[0]}
    order = merged["index"].argsort()
    return {name: tensor[order] for name, tensor in merged.items()}, partials


def concatenated(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Outputs of a shard's batches as one: rows are concatenated, partial sums must come from a single batch.

    Batches without any output, whose results come with a later one, are left out.
    """
    batches = [batch for batch in batches if batch]
    if len(batches) == 1:
        return dict(batches[0])
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
