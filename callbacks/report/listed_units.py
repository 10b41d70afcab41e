"""Units that lists of a run name: each once, with an address for links, a name for readers and what activates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.callbacks.report.neuron_passages import Passages
from twinlens.callbacks.report.packing import Packing

MAX_WITH_PASSAGES = 5000
"""Units whose passages the page keeps, those that came first; the run's files have all."""

Address = tuple[str, str, str, int, int, int]
"""Kind (neuron, head or layer), site, role, layer, unit, expert (−1 for none)."""


class ListedUnits:
    """Numbers units in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[Address, int] = {}

    def number(self, address: Address) -> int:
        """The number of a unit."""
        return self._numbers.setdefault(address, len(self._numbers))

    def packed(self, passages: Passages, words: Mapping[str, Sequence[str]], pack: Packing) -> dict[str, Any]:
        """All units for the page's header; passages are [train index, activation, before, marked, after].

        Args:
            words: by address, what a unit's value raises most.
        """
        found: dict[int, list[list[Any]]] = {}
        for (kind, site, _, layer, unit, _), number in list(self._numbers.items())[:MAX_WITH_PASSAGES]:
            if kind == "neuron" and (shown := passages.of(site, layer, unit)):
                found[number] = [[p.index, p.activation, p.before, p.marked, p.after] for p in shown]
        return {
            "key": [address_text(address) for address in self._numbers],
            "name": [unit_name(address) for address in self._numbers],
            "layer": pack.whole([address[3] for address in self._numbers]),
            "passages": found,
            "words": {n: list(words[key]) for n, key in enumerate(map(address_text, self._numbers)) if key in words},
        }


def addresses(row: Mapping[str, Any]) -> list[Address]:
    """The addresses of a row's list, or the one of a row that is about a single unit."""
    layers = row["layer"] if isinstance(row["layer"], list) else [row["layer"]]
    return [
        (
            _entry(row, "unit_kind", i) or "neuron",
            _entry(row, "site", i) or "ffn",
            _entry(row, "role", i) or "value",
            int(layer),
            int(_entry(row, "unit", i) or 0),
            int(_entry(row, "expert", i) or -1),
        )
        for i, layer in enumerate(layers)
    ]


def address_text(address: Address) -> str:
    """What a link calls a unit: `ffn.3.17`, `head.3.2`, `ffn.3.17.query`."""
    kind, site, role, layer, unit, expert = address
    parts = [site if kind == "neuron" else kind, str(layer), str(unit)]
    parts += [f"e{expert}"] if expert >= 0 else []
    return ".".join([*parts, *([role] if role != "value" else [])])


def unit_name(address: Address) -> str:
    """What a reader calls a unit: `L3 · 17`, `L3 · head 2`, `L3 · 17 ATTN, query`."""
    kind, site, role, layer, unit, expert = address
    if kind == "layer":
        return f"L{layer}"
    detail = ([site.upper()] if site != "ffn" and kind == "neuron" else []) + ([role] if role != "value" else [])
    where = f"expert {expert} · " if expert >= 0 else ""
    return f"L{layer} · {where}{'head ' if kind == 'head' else ''}{unit}" + (f" {', '.join(detail)}" if detail else "")


def _entry(row: Mapping[str, Any], name: str, i: int) -> str:
    """Entry i of a list column, or the column's one value for the whole list; empty for none."""
    value = row.get(name)
    if isinstance(value, list):
        value = value[i] if i < len(value) else None
    return "" if value is None else str(value)
