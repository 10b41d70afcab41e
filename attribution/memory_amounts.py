"""Amounts of memory in words."""

from __future__ import annotations


def bytes_in_words(count: int) -> str:
    """For example `3.2 MiB`.

    Example:
        >>> from twinlens.attribution.memory_amounts import bytes_in_words
        >>> bytes_in_words(500), bytes_in_words(3_400_000), bytes_in_words(141 * 2**30)
        ('500 B', '3.2 MiB', '141 GiB')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
