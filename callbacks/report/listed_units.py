"""Units that lists of a run name: each once, with an address for links, a name for readers and what activates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.callbacks.report.neuron_names import entry, unit_name
from twinlens.callbacks.report.neuron_passages import Passages
from twinlens.callbacks.report.packing import Packing

MAX_WITH_PASSAGES = 5000
"""Units whose passages the page keeps, those that came first; the run's files have all."""

Address = tuple[str, str, str, int, int, str]
"""Kind (neuron, head or layer), site, role, layer, unit of the layer, and its name within it (`unit_name`)."""


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
            "name": [shown_name(address) for address in self._numbers],
            "layer": pack.whole([address[3] for address in self._numbers]),
            "passages": found,
            "words": {n: list(words[key]) for n, key in enumerate(map(address_text, self._numbers)) if key in words},
        }


def addresses(row: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Address]:
    """The addresses of a row's list, or the one of a row that is about a single unit.

    Args:
        row: of scores.
        settings: of their method.yaml.
    """
    one = not isinstance(row["layer"], list)
    row = {**row, "layer": [row["layer"]], "unit": [row["unit"]]} if one else row
    found = []
    for i, layer in enumerate(row["layer"]):
        kind = entry(row, "unit_kind", i) or "neuron"
        site, role = entry(row, "site", i) or "ffn", entry(row, "role", i) or "value"
        name = "" if kind == "layer" else unit_name(settings, row, i, kind)
        found.append((kind, site, role, int(layer), int(entry(row, "unit", i) or 0), name))
    return found


def address_text(address: Address) -> str:
    """What a link calls a unit: `ffn.3.17`, `head.3.2`, `ffn.3.17.query`."""
    kind, site, role, layer, unit, _ = address
    return ".".join([site if kind == "neuron" else kind, str(layer), str(unit), *([role] if role != "value" else [])])


def shown_name(address: Address) -> str:
    """What a reader calls a unit: `L3 · 17`, `L3 · head 2`, `L3 · 17 ATTN, query`, `L3 · expert 5 · unit 17`."""
    kind, site, role, layer, _, name = address
    if kind == "layer":
        return f"L{layer}"
    detail = ([site.upper()] if site != "ffn" and kind == "neuron" else []) + ([role] if role != "value" else [])
    return f"L{layer} · {name}" + (f" {', '.join(detail)}" if detail else "")
