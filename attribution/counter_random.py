"""Random numbers as a function of their coordinates: the same whatever the batch, block, device or process."""

from __future__ import annotations

import torch
from torch import Tensor

_LOW_32_BITS = 0xFFFFFFFF


def uniform(seed: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Independent uniform numbers on [0, 1) for each (row, column).

    Args:
        seed: of the whole table.
        rows: row numbers, int64 [rows].
        columns: column numbers, int64 [columns].

    Returns:
        float32 [rows, columns].

    Example:
        >>> import torch
        >>> from twinlens.attribution.counter_random import uniform
        >>> table = uniform(0, torch.arange(3), torch.arange(4))
        >>> table.shape
        torch.Size([3, 4])
        >>> part = uniform(0, torch.tensor([2]), torch.tensor([1, 3]))
        >>> bool((part == table[2, [1, 3]]).all())  # a part is drawn as the whole is
        True
    """
    start = mix(torch.tensor(seed, dtype=torch.int64, device=rows.device))
    bits = mix(mix(start + rows.long())[:, None] + columns.long())
    # the upper 24 of the mixed 32 bits fill a float32 mantissa exactly
    return ((bits & _LOW_32_BITS) >> 8).to(torch.float32) / 2**24


def mix(state: Tensor) -> Tensor:
    """One SplitMix64 output per state (Steele, Lea and Flood 2014), in wrapping int64 arithmetic, [...] → [...]."""

    def shifted(x: Tensor, bits: int) -> Tensor:
        return (x >> bits) & ((1 << (64 - bits)) - 1)  # a logical shift: int64 shifts carry the sign along

    z = state + (0x9E3779B97F4A7C15 - 2**64)
    z = (z ^ shifted(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ shifted(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ shifted(z, 31)
