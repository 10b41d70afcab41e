"""Charts as PNG: lines with error bars, and shares stacked to a whole."""

from __future__ import annotations

import math
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from twinlens.callbacks.figures.charts import Chart, Panel, Series, ticks_apart
from twinlens.callbacks.figures.style import DPI, GRID, INK, STYLE, short
from twinlens.callbacks.results.formatting import format_number

_DASHES: dict[str, Any] = {"solid": "-", "dashed": (0, (5, 2.5)), "dotted": (0, (1, 1.8))}
_COLUMNS = 2
_TITLE = 58
_TEXT_SHARE = 9.0
"""Shares below it, in per cent, have no room for a number."""


def chart_figure(chart: Chart) -> Figure:
    """All panels of a chart in rows of two, one legend below them."""
    columns = min(_COLUMNS, len(chart.panels))
    lines = math.ceil(len(chart.panels) / columns)
    legend = chart.legend
    per_row = 3 if columns == 2 else 2
    legend_height = 0.25 * math.ceil(len(legend) / per_row)
    with rc_context(STYLE):
        size = (1.2 + 3.9 * columns, 2.9 * lines + legend_height + 0.2)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for panel, axis in zip(chart.panels, axes, strict=False):
            (_shares if panel.kind == "shares" else _lines)(axis, panel)
            _decorate(axis, panel)
        for axis in axes[len(chart.panels) :]:
            axis.set_visible(False)
        shares = all(panel.kind == "shares" for panel in chart.panels)
        handles = [_swatch(series, shares) for series in legend.values()]
        figure.legend(
            handles,
            [short(name) for name in legend],
            loc="outside lower center",
            ncols=min(per_row, len(legend)),
            frameon=False,
            handlelength=3.2,
        )
    return figure


def _lines(axis: Axes, panel: Panel) -> None:
    for series in panel.series:
        if not series.points:
            continue
        x = [point.x for point in series.points]
        axis.errorbar(
            x,
            [point.y for point in series.points],
            yerr=[point.error or 0.0 for point in series.points] if any(p.error for p in series.points) else None,
            color=series.colour,
            linestyle=_DASHES[series.line],
            linewidth=1.6,
            marker="o" if series.markers else None,
            markersize=4.5,
            markerfacecolor="white" if series.line == "dashed" else series.colour,
            markeredgecolor=series.colour,
            elinewidth=1.0,
            capsize=2.0,
        )
    if panel.log_x:
        axis.set_xscale("log")
        axis.minorticks_off()
    places = ticks_apart(panel)
    if places:
        axis.set_xticks(places, [format_number(place) for place in places])
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    axis.margins(y=0.12)


def _shares(axis: Axes, panel: Panel) -> None:
    places = sorted({point.x for series in panel.series for point in series.points})
    base = dict.fromkeys(places, 0.0)
    for series in panel.series:
        for point in series.points:
            place = places.index(point.x)
            axis.bar(place, point.y, bottom=base[point.x], width=0.72, color=series.colour, edgecolor="white")
            if point.y >= _TEXT_SHARE:
                middle = base[point.x] + point.y / 2
                axis.text(place, middle, f"{point.y:.0f}", ha="center", va="center", fontsize=8, color="white")
            base[point.x] += point.y
    axis.set_xticks(range(len(places)), [format_number(place) for place in places])
    axis.set_ylim(0, 100)


def _decorate(axis: Axes, panel: Panel) -> None:
    axis.set_title(short(panel.title, _TITLE))
    axis.set_xlabel(f"{panel.x_label}\n{_wrapped(panel.note)}" if panel.note else panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=3, color=INK)
    axis.set_axisbelow(True)


def _swatch(series: Series, shares: bool) -> Line2D | Patch:
    if shares:
        return Patch(color=series.colour)
    return Line2D(
        [],
        [],
        color=series.colour,
        linestyle=_DASHES[series.line],
        marker="o" if series.markers else None,
        markersize=4.5,
        markerfacecolor="white" if series.line == "dashed" else series.colour,
        markeredgecolor=series.colour,
    )


def _wrapped(text: str, width: int = 62) -> str:
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return "\n".join(lines)
