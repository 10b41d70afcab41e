"""Names of listed units as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unit_name(settings: Mapping[str, Any], row: Mapping[str, Any], i: int, kind: str) -> str:
    """A head, a unit of a layer, or of an expert: `17`, `head 3`, `expert 5 · unit 17`, `shared expert · unit 17`.

    Args:
        settings: method.yaml.
        row: of the scores.
        i: entry of its lists.
        kind: of the entry, `neuron` or `head`.
    """
    expert = entry(row, "expert", i)
    if expert in ("", "-1"):
        return f"{'head ' if kind == 'head' else ''}{row['unit'][i]}"
    routed = (settings.get("experts") or {}).get("routed")
    return f"{'shared expert' if str(routed) == expert else f'expert {expert}'} · unit {entry(row, 'expert_unit', i)}"


def entry(row: Mapping[str, Any], name: str, i: int) -> str:
    """Entry i of a list column, or the column's one value for the whole list."""
    value = row.get(name)
    if isinstance(value, list):
        value = value[i] if i < len(value) else None
    return "" if value is None else str(value)
