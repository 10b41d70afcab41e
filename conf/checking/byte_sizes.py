"""Quantities with units."""

from __future__ import annotations

import re
from decimal import Decimal

from twinlens.attribution.errors import UserError

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _UNITS[f"{_letter}B".upper()] = 1000**_power
    _UNITS[f"{_letter}iB".upper()] = 1024**_power


def parse_bytes(text: str | int, where: str = "memory_budget") -> int:
    """Bytes meant by `4GiB`, `500 MB` or a plain number of bytes (KB = 1000 bytes, KiB = 1024 bytes).

    Raises:
        UserError: where the text is no such quantity or is not at least one byte; `where` names the config key.
    """
    match = None if isinstance(text, bool) else re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].upper() not in _UNITS or int(Decimal(match[1]) * _UNITS[match[2].upper()]) < 1:
        raise UserError(
            f"{where}={text!r} is no amount of memory: expected a positive number with a unit B, KB, MB, GB, TB, KiB, "
            f"MiB, GiB or TiB; write for example {where}=4GiB."
        )
    return int(Decimal(match[1]) * _UNITS[match[2].upper()])
