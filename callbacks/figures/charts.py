"""Contents of a figure, apart from its drawing: charts of panels of series, made of results rows.

`png` draws a chart for print; a page draws the same points.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from twinlens.callbacks.results.columns import Cell, Row, is_control
from twinlens.callbacks.results.unified_tables import NAMES

Line = Literal["solid", "dashed", "dotted"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#4D4D9F")
"""Okabe and Ito's colours, safe for colour-blind readers, and two more."""
GREY = "#7D8792"
"""Controls and references."""
_HOME = {"na_instances": 0, "ig": 0, "influence": 1, "influence_neurons": 1, "gradsim": 2, "gradsim_neurons": 2}


@dataclass(frozen=True)
class Point:
    """One value with its standard error, None where it has none."""

    x: float
    y: float
    error: float | None = None


@dataclass(frozen=True)
class Series:
    """The points of one name, by rising x.

    Attributes:
        colour: of lines and areas, `#rrggbb`.
        line: how lines are drawn.
        markers: points are marked; False for a reference line.
    """

    name: str
    points: tuple[Point, ...]
    colour: str
    line: Line = "solid"
    markers: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        kind: lines over x, or shares of a whole stacked at each x.
        log_x: the x axis is logarithmic.
        note: a sentence under the panel.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    kind: Literal["lines", "shares"] = "lines"
    log_x: bool = False
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """One figure. `name` is its file name without suffix, `caption` what a reader needs to know."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]

    @property
    def legend(self) -> dict[str, Series]:
        """Every name once, in order of appearance."""
        found: dict[str, Series] = {}
        for panel in self.panels:
            for series in panel.series:
                found.setdefault(series.name, series)
        return found


def estimate(rows: Sequence[Row]) -> tuple[float, float | None] | None:
    """Value and standard error: a single row's own, several rows' mean with the error of that mean."""
    values = [float(row["value"]) for row in rows if isinstance(row["value"], int | float)]
    if not values:
        return None
    if len(values) == 1:
        error = rows[0].get("stderr")
        return values[0], float(error) if isinstance(error, int | float) else None
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def points_over_k(rows: Iterable[Row]) -> tuple[Point, ...]:
    """One point per k, the mean of all rows with that k."""
    by_k: dict[float, list[Row]] = {}
    for row in rows:
        k, value = row.get("k"), row.get("value")
        if isinstance(k, int | float) and isinstance(value, int | float) and math.isfinite(value):
            by_k.setdefault(float(k), []).append(row)
    points = []
    for k in sorted(by_k):
        found = estimate(by_k[k])
        if found is not None:
            points.append(Point(k, *found))
    return tuple(points)


def ticks_apart(panel: Panel, closest: float = 0.05) -> list[float]:
    """The x values of a panel's marks that have room for a label, the last one always.

    Args:
        closest: smallest distance between two labels, as a part of the axis.
    """
    places = sorted({point.x for series in panel.series for point in series.points if series.markers})
    if panel.kind == "shares" or len(places) < 2:
        return places
    scaled = [math.log(place) for place in places] if panel.log_x and places[0] > 0 else places
    kept = [len(places) - 1]
    for number in range(len(places) - 2, -1, -1):
        if scaled[kept[-1]] - scaled[number] >= closest * (scaled[-1] - scaled[0]):
            kept.append(number)
    return [places[number] for number in reversed(kept)]


def controls_in(rows: Iterable[Row]) -> set[str]:
    """Methods of the rows that are controls."""
    return {str(row["method"] or "") for row in rows if is_control(row)}


def colours(names: Iterable[str], controls: Collection[str] = ()) -> dict[str, str]:
    """A colour per method: grey for controls, the same for a method and its counterpart in the other lens."""
    found: dict[str, str] = {}
    names = list(dict.fromkeys(names))
    taken = {_HOME[name] for name in names if name in _HOME}
    free = [place for place in range(len(PALETTE)) if place not in taken]
    for name in names:
        if name in controls:
            found[name] = GREY
        elif name in _HOME:
            found[name] = PALETTE[_HOME[name]]
        else:
            found[name] = PALETTE[(free.pop(0) if free else len(found)) % len(PALETTE)]
    return found


def lines(colour: Mapping[str, str]) -> dict[str, Line]:
    """How to draw each name's line: of those that share a colour the first solid, the second dashed, others dotted."""
    styles: tuple[Line, ...] = ("solid", "dashed", "dotted")
    names = list(colour)
    earlier = {name: sum(colour[other] == colour[name] for other in names[:i]) for i, name in enumerate(names)}
    return {name: styles[min(count, len(styles) - 1)] for name, count in earlier.items()}


def shown_name(method: Cell) -> str:
    """The paper's name of a method, its own where the paper has none."""
    return NAMES.get(str(method or ""), str(method or ""))


def settings_of(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Every (model, data) of the rows, in order."""
    return list(dict.fromkeys((str(row.get("model") or ""), str(row.get("data") or "")) for row in rows))


def within(rows: Iterable[Row], setting: tuple[str, str]) -> list[Row]:
    """The rows of one (model, data)."""
    return [row for row in rows if (str(row.get("model") or ""), str(row.get("data") or "")) == setting]


def titled(setting: tuple[str, str], what: str = "") -> str:
    """What a panel is called: what it shows, then model and data."""
    names = " · ".join(part for part in setting if part)
    return f"{what}, {names}" if what and names else what or names
