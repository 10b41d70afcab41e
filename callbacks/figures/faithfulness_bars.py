"""Bars of sufficiency and comprehensiveness beside their random controls."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twinlens.callbacks.figures.charts import estimate
from twinlens.callbacks.figures.faithfulness import METRICS
from twinlens.callbacks.figures.style import DPI, GRID, INK, STYLE, short
from twinlens.callbacks.results.columns import Cell, Row, is_control, with_setting
from twinlens.callbacks.results.formatting import format_number

FAITHFULNESS_METRICS = tuple(METRICS)
_BLUE, _GREY = "#0072B2", "#B8BEC6"


def faithfulness_bars(rows: Sequence[Row]) -> Figure:
    """Sufficiency and comprehensiveness of every method, one panel per metric and k; controls in grey.

    Several rows of one method and site (seeds, variants) become their mean with its standard error; a method that is
    not as shipped has bars of its own.
    """
    panels = list(dict.fromkeys((row["metric"], row["k"]) for row in rows if is_faithfulness(row)))
    panels.sort(key=lambda panel: (FAITHFULNESS_METRICS.index(str(panel[0])), _sortable(panel[1])))
    methods = list(dict.fromkeys(_bar(row) for row in rows if is_faithfulness(row)))
    controls = {_bar(row) for row in rows if is_control(row)}
    methods.sort(key=lambda name: name in controls)
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    with rc_context(STYLE):
        height = lines * (0.34 * len(methods) + 0.95)
        longest = max(len(short(name)) for name in methods)
        figure = Figure(
            figsize=(1.0 + 0.06 * longest + 3.6 * columns, height), dpi=DPI, layout="constrained", facecolor="white"
        )
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, axis in zip(panels, axes, strict=False):
            _bars(axis, rows, methods, panel, controls)
            axis.tick_params(labelbottom=True)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        axes[0].margins(x=0.14)
        axes[0].set_xlim(left=0)
    return figure


def _bars(
    axis: Axes, rows: Sequence[Row], methods: Sequence[str], panel: tuple[Cell, Cell], controls: Collection[str]
) -> None:
    metric, k = panel
    for place, name in enumerate(methods):
        found = [row for row in rows if is_faithfulness(row) and _bar(row) == name]
        mean = estimate([row for row in found if (row["metric"], row["k"]) == panel])
        if mean is None:
            continue
        value, error = mean
        control = name in controls
        axis.barh(
            place,
            value,
            xerr=error,
            height=0.68,
            color=_GREY if control else _BLUE,
            hatch="///" if control else None,
            edgecolor="white" if control else _BLUE,
            linewidth=0,
            error_kw={"ecolor": INK, "elinewidth": 1.1, "capsize": 2.5},
        )
        axis.annotate(
            format_number(round(value, 3)),
            (value + (error or 0.0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    better = "higher is better" if metric == "sufficiency" else "lower is better"
    axis.set_title(f"{str(metric).capitalize()}{'' if k is None else f', k = {format_number(k)}'}")
    axis.set_xlabel(f"predictions preserved; {better}")
    axis.set_yticks(range(len(methods)), [short(name) for name in methods])
    axis.set_ylim(len(methods) - 0.5, -0.5)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def is_faithfulness(row: Row) -> bool:
    return row["metric"] in FAITHFULNESS_METRICS and not row["group"] and isinstance(row["value"], int | float)


def _bar(row: Row) -> str:
    """A method, what is not as shipped of it, and the site that its lists rank where that is not FFN neurons alone."""
    sites = [part.removeprefix("site=") for part in str(row["variant"] or "").split(";") if part.startswith("site=")]
    return " ".join([with_setting(str(row["method"] or ""), row), *(f"({site})" for site in sites)])


def _sortable(k: Cell) -> tuple[int, float, str]:
    return (0, float(k), "") if isinstance(k, int | float) else (1, 0.0, str(k))
