"""Charts for a page: where every line, bar and tick lies, for templates/chart.html.j2 to draw as inline SVG.

The template and templates/chart.js stand in the report and in the page of a single figure alike. A page needs no
network and no script to be read; the script adds values under the pointer and switches series on and off.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from twinlens.callbacks.figures.charts import Chart, Panel, Series, ticks_apart
from twinlens.callbacks.results.formatting import format_number, format_value

TEMPLATES = Path(__file__).parent / "templates"
WIDTH, HEIGHT = 460.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 12.0, 44.0
"""Space around the axes, in units of the drawing."""
_DASHES = {"solid": "", "dashed": "7 4", "dotted": "2 3.5"}


@cache
def environment(*folders: Path) -> Environment:
    """The templates of figures and of further folders, compiled once; everything that comes from data is escaped."""
    return Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source(name: str, folder: Path = TEMPLATES) -> str:
    """A style sheet or script of the templates."""
    return (folder / name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """What a content security policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def write_page(chart: Chart, path: Path) -> Path:
    """Write a page of one chart to a partial path and rename it."""
    script = source("chart.js")
    page = (
        environment()
        .get_template("figure.html.j2")
        .render(
            chart=chart_view(chart),
            style=Markup(source("style.css")),
            script=Markup(script),
            script_hash=digest(script),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(page.encode("utf-8", "replace"))
    os.replace(partial, path)
    return path


def chart_view(chart: Chart) -> dict[str, Any]:
    """What the template draws of a chart."""
    numbers = {name: number for number, name in enumerate(chart.legend)}
    return {
        "name": chart.name,
        "number": f"Figure {chart.name.removeprefix('figure')}" if chart.name[-1:].isdigit() else "",
        "title": chart.title,
        "caption": chart.caption,
        "legend": [
            {"number": numbers[name], "name": name, "colour": one.colour, "dash": _DASHES[one.line]}
            for name, one in chart.legend.items()
        ],
        "shares": all(panel.kind == "shares" for panel in chart.panels),
        "panels": [_panel(panel, numbers) for panel in chart.panels],
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
    }


def _panel(panel: Panel, numbers: dict[str, int]) -> dict[str, Any]:
    shares = panel.kind == "shares"
    places = sorted({point.x for series in panel.series for point in series.points})
    low, high, y_ticks = (0.0, 100.0, [0.0, 25.0, 50.0, 75.0, 100.0]) if shares else _range(panel.series)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    x = _x_scale(places, panel)
    return {
        "title": panel.title,
        "x_label": panel.x_label,
        "y_label": panel.y_label,
        "note": panel.note,
        "x_ticks": [(round(x(place), 2), format_number(place)) for place in ticks_apart(panel)],
        "y_ticks": [(round(y(value), 2), format_number(round(value, 6))) for value in y_ticks],
        "series": _bars(panel, numbers, x, y) if shares else [_line(one, panel, numbers, x, y) for one in panel.series],
    }


def _line(
    series: Series, panel: Panel, numbers: dict[str, int], x: Callable[[float], float], y: Callable[[float], float]
) -> dict[str, Any]:
    points = [
        {
            "x": round(x(point.x), 2),
            "y": round(y(point.y), 2),
            "low": round(y(point.y - point.error), 2) if point.error else None,
            "high": round(y(point.y + point.error), 2) if point.error else None,
            "said": _said(series.name, point.x, panel.x_label, format_value(point.y, point.error)),
        }
        for point in series.points
    ]
    return {
        "number": numbers[series.name],
        "name": series.name,
        "colour": series.colour,
        "dash": _DASHES[series.line],
        "hollow": series.line == "dashed",
        "markers": series.markers,
        "path": " ".join(f"{'L' if i else 'M'}{point['x']} {point['y']}" for i, point in enumerate(points)),
        "points": points,
        "bars": [],
    }


def _bars(
    panel: Panel, numbers: dict[str, int], x: Callable[[float], float], y: Callable[[float], float]
) -> list[dict[str, Any]]:
    places = sorted({point.x for series in panel.series for point in series.points})
    width = 0.72 * (WIDTH - LEFT - RIGHT) / max(len(places), 1)
    base = dict.fromkeys(places, 0.0)
    drawn = []
    for series in panel.series:
        bars = []
        for point in series.points:
            top, bottom = y(base[point.x] + point.y), y(base[point.x])
            bars.append(
                {
                    "x": round(x(point.x) - width / 2, 2),
                    "y": round(top, 2),
                    "width": round(width, 2),
                    "height": round(max(bottom - top, 0.0), 2),
                    "middle": round(x(point.x), 2),
                    "shown": f"{point.y:.0f}" if bottom - top > 16 else "",
                    "said": _said(series.name, point.x, panel.x_label, f"{format_value(point.y, point.error)} %"),
                }
            )
            base[point.x] += point.y
        drawn.append(
            {"number": numbers[series.name], "name": series.name, "colour": series.colour, "bars": bars, "points": []}
        )
    return drawn


def _said(name: str, place: float, x_label: str, value: str) -> str:
    return f"{name}: {value} at {format_number(place)} ({x_label})"


def _range(series: Sequence[Series]) -> tuple[float, float, list[float]]:
    """Ends of the y axis and its ticks; errors fit in."""
    ends = [point.y + sign * (point.error or 0.0) for one in series for point in one.points for sign in (-1, 1)]
    if not ends:
        return 0.0, 1.0, [0.0, 1.0]
    low, high = min(ends), max(ends)
    margin = 0.08 * (high - low) or max(abs(high) * 0.1, 0.05)
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low - margin, high + margin)
    return low - margin, high + margin, [float(tick) for tick in ticks if low - margin <= tick <= high + margin]


def _x_scale(places: Sequence[float], panel: Panel) -> Callable[[float], float]:
    if panel.kind == "shares":
        step = (WIDTH - LEFT - RIGHT) / max(len(places), 1)
        return lambda place: LEFT + step * (places.index(place) + 0.5)
    if panel.log_x and places and places[0] > 0:
        scale = _scale(math.log(places[0]), math.log(places[-1]), LEFT + 14, WIDTH - RIGHT - 14)
        return lambda place: scale(math.log(place))
    return _scale(places[0] if places else 0.0, places[-1] if places else 1.0, LEFT + 14, WIDTH - RIGHT - 14)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low
    if span <= 0:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / span * (end - start)
