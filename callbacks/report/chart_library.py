"""The charting library that a page carries, as it lies in the installed package `plotly` (MIT licence)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from twinlens.callbacks.report.packing import packed


@dataclass(frozen=True)
class ChartLibrary:
    """`script`: what the page may run; `packed`: the same as base64 of gzip."""

    script: str
    packed: str


@cache
def chart_library() -> ChartLibrary:
    """The library, read once. The browser unpacks it only when the first figure comes into view."""
    script = files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    script = script.replace("\r\n", "\n")
    return ChartLibrary(script, packed(script.encode()))
