"""Shards: the unit in which a pass is written, checked, resumed and merged.

A pass over n examples is cut into shards of rows before it starts, independent of how many processes run it. Each
shard becomes one safetensors file with a checksum, so that a killed pass redoes at most one and an altered file is
found when it is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from twinlens.callbacks.store.files import partial_of, put, remove
from twinlens.data.sampling import length_sorted_batches

Shards = Sequence[Sequence[Sequence[int]]]
"""shards → batches → row numbers."""

ROWS_PER_SHARD = 256
"""Upper bound of a shard, what a killed pass may have to redo."""
SHARDS_AT_LEAST = 16
"""Small splits are cut finer, so that several processes have something to share."""
SCORE_SEGMENTS = 64
"""Of the train split at most where whole gradients are scored: each leaves the best and worst examples of all tests."""
FACTOR_SEGMENTS = 8
"""Of the train split where factors are summed: each leaves a file as large as the covariances of all layers."""

_ENTRY = re.compile(r"([0-9a-f]{24})(\.partial)?")

PARTIAL_SUMS = "partial/"
"""Prefix of tensors that belong to the shard as a whole, not to its rows."""
ADDED_UP = f"{PARTIAL_SUMS}added/"
"""Prefix of those that are added up along their first axis, over the batches of a shard and over the shards."""


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard_{number:06d}.safetensors"


def write_shard(folder: Path, number: int, tensors: Mapping[str, Tensor]) -> None:
    """Write one shard, whole or not at all."""
    kept: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        # one tensor under two names, as a list without units and positions has it, would be refused
        kept[name] = whole.clone() if whole.data_ptr() in places else whole
        places.add(whole.data_ptr())
    path = shard_path(folder, number)
    partial = partial_of(path)
    save_file(kept, partial, metadata={"xxh3": _checksum(kept), "of": _entry_of(folder), "number": str(number)})
    put(partial, path)


def read_shard(folder: Path, number: int) -> dict[str, Tensor] | None:
    """The shard's tensors, or None where it is missing, truncated, altered or that of another number or entry."""
    path = shard_path(folder, number)
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            said = opened.metadata() or {}
    except MemoryError:
        raise
    except Exception:  # what reading altered bytes raises is nowhere stated
        return None
    expected = {"xxh3": _checksum(tensors), "of": _entry_of(folder), "number": str(number)}
    return tensors if said == expected else None


def missing_shards(folder: Path, count: int) -> list[int]:
    """Numbers of the shards that are still to be computed; damaged files are named and removed."""
    missing = []
    for number in range(count):
        if read_shard(folder, number) is None:
            path = shard_path(folder, number)
            if path.exists() or path.is_symlink():
                print(f"{path} is truncated or altered: it is computed again", flush=True)
                remove(path)
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


def shard_sums(folder: Path, count: int) -> dict[str, Tensor]:
    """What the shards left to be added up, one shard in memory at a time; names without their prefix.

    Raises:
        FileNotFoundError: a shard is missing or damaged.
    """
    total: dict[str, Tensor] = {}
    for number in range(count):
        tensors = read_shard(folder, number)
        if tensors is None:
            raise FileNotFoundError(shard_path(folder, number))
        for name, values in tensors.items():
            if name.startswith(ADDED_UP):
                key = name.removeprefix(ADDED_UP)
                total[key] = total[key].add_(values.sum(0)) if key in total else values.sum(0)
    return total


def concatenated(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Outputs of a shard's batches as one: rows are concatenated, what is to be added up is, other partial sums must
    come from a single batch.

    Batches without any output, whose results come with a later one, are left out.
    """
    batches = [batch for batch in batches if batch]
    if len(batches) == 1:
        return dict(batches[0])
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return {name: t.sum(0, keepdim=True) if name.startswith(ADDED_UP) else t for name, t in joined.items()}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _entry_of(folder: Path) -> str:
    """Fingerprint of the entry that a folder lies in, finished or not; empty where it lies in none."""
    names = (_ENTRY.fullmatch(name) for name in reversed(folder.absolute().parts))
    return next((name[1] for name in names if name), "")


def rows_per_shard(n_rows: int) -> int:
    """Rows of one shard; depends on the split alone, never on the number of processes."""
    return max(1, min(ROWS_PER_SHARD, -(-n_rows // SHARDS_AT_LEAST)))


def row_shards(n_rows: int) -> list[list[list[int]]]:
    """Shards of one batch of consecutive rows each, for passes that read cached tensors."""
    return index_shards(n_rows, rows_per_shard(n_rows))


def index_shards(count: int, rows_per_batch: int) -> list[list[list[int]]]:
    """One batch of consecutive rows per shard."""
    rows = list(range(count))
    return [[rows[start : start + rows_per_batch]] for start in range(0, count, rows_per_batch)]


def batch_shards(rows: Any, batch_size: int) -> list[list[list[int]]]:
    """Length-sorted batches of a prepared split, grouped into shards; the same for any number of processes."""
    return length_sorted_batches(rows, batch_size, rows_per_shard(len(rows)))


def score_segments(rows: Any, batch_size: int) -> list[list[list[int]]]:
    """The same with no more than `SCORE_SEGMENTS` shards."""
    at_least = -(-len(rows) // SCORE_SEGMENTS)
    return length_sorted_batches(rows, batch_size, max(rows_per_shard(len(rows)), at_least))


def factor_segments(rows: Any, batch_size: int) -> list[list[list[int]]]:
    """The same with no more than `FACTOR_SEGMENTS` shards, and no fewer."""
    return length_sorted_batches(rows, batch_size, max(1, -(-len(rows) // FACTOR_SEGMENTS)))


class Progress:
    """Tells when a process has seen the last batch of a segment; it takes one segment after the other.

    Args:
        shards: the segments of the pass.
    """

    def __init__(self, shards: Shards) -> None:
        self._sizes = {row: sum(map(len, segment)) for segment in shards for batch in segment for row in batch}
        self._seen = 0

    def ends(self, index: Tensor) -> bool:
        """Whether the batch with these rows, [batch], is the last one of its segment."""
        self._seen += len(index)
        if self._seen < self._sizes[int(index[0])]:
            return False
        self._seen = 0
        return True
