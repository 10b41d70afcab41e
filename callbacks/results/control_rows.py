"""Random controls among a run's methods and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_control(row_or_name: Mapping[str, Any] | str) -> bool:
    """Whether a row of results.csv, or a method's name, is of a random control."""
    name = row_or_name if isinstance(row_or_name, str) else str(row_or_name.get("method") or "")
    return name.startswith("random")
