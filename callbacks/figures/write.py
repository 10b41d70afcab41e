"""The figures of a run or a sweep under figures/: layers of the top neurons, faithfulness, the paper's Figures 2 to 6.

Charts are drawn twice, as PNG and as a page of their own. Colours: cividis for shares, Okabe and Ito's palette for
bars and lines, both safe for colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from twinlens.callbacks.figures.charts import Chart, estimate
from twinlens.callbacks.figures.faithfulness import METRICS, faithfulness_charts
from twinlens.callbacks.figures.layer_profiles import LayerProfile, layer_profiles
from twinlens.callbacks.figures.neuron_level import head_heat_map, knowledge_charts
from twinlens.callbacks.figures.overlap import overlap_charts
from twinlens.callbacks.figures.png import chart_figure
from twinlens.callbacks.figures.retraining import retraining_charts
from twinlens.callbacks.figures.style import DPI, GRID, INK, STYLE, save, short
from twinlens.callbacks.figures.svg import write_page
from twinlens.callbacks.results.results_csv import Cell, Row, format_number
from twinlens.callbacks.results.run_files import RunFiles

LAYER_HEAT_MAP = "layer_heat_map.png"
HEAD_HEAT_MAP = "prompt_heads.png"
FAITHFULNESS = "faithfulness.png"
FAITHFULNESS_METRICS = tuple(METRICS)

_BLUE, _GREY = "#0072B2", "#B8BEC6"
_ANNOTATED_LAYERS = 16  # more cells are too narrow for a number


def write_figures(run_dir: Path) -> list[Path]:
    """Draw every figure the run's files allow into <run>/figures and return their paths."""
    run = RunFiles(run_dir)
    folder = run_dir / "figures"
    profiles = layer_profiles(run)
    paths = [save(layer_heat_map(profiles), folder / LAYER_HEAT_MAP)] if profiles else []
    heads = [row for row in run.results if row["evaluation"] == "prompt" and row["metric"] == "head_increase"]
    paths += [save(head_heat_map(heads), folder / HEAD_HEAT_MAP)] if heads else []
    return [*paths, *write_results_figures(run.results, folder)]


def write_results_figures(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw what results rows allow: faithfulness as curves or bars, and every chart as PNG and page."""
    found = charts(rows)
    paths = []
    if all(chart.name != "faithfulness" for chart in found) and any(_is_faithfulness(row) for row in rows):
        paths.append(save(faithfulness_bars(rows), folder / FAITHFULNESS))
    for chart in found:
        paths.append(save(chart_figure(chart), folder / f"{chart.name}.png"))
        paths.append(write_page(chart, folder / f"{chart.name}.html"))
    return paths


def charts(rows: Sequence[Row]) -> list[Chart]:
    """All charts of results rows: faithfulness curves, then the paper's figures by number."""
    numbered = sorted([*retraining_charts(rows), *overlap_charts(rows)], key=lambda chart: chart.name)
    return [*faithfulness_charts(rows), *numbered, *knowledge_charts(rows)]


def layer_heat_map(profiles: Sequence[LayerProfile]) -> Figure:
    """Layers (columns) by method and explained class (rows): share of the top neurons, and summed score.

    Shares have one scale for all rows; scores are divided by the largest magnitude of their row, because methods have
    different units.
    """
    layers = len(profiles[0].share)
    share = np.stack([profile.share for profile in profiles])
    score = np.stack([profile.score for profile in profiles])
    largest = np.abs(score).max(1, keepdims=True)
    relative = np.divide(score, largest, out=np.zeros_like(score), where=largest > 0)
    with rc_context(STYLE):
        cell = min(0.5, max(0.22, 9.0 / layers))
        width, height = 3.4 + cell * layers, 0.3 * len(profiles)
        figure = Figure(figsize=(max(width, 6.0), 2 * height + 1.9), dpi=DPI, layout="constrained", facecolor="white")
        upper, lower = figure.subplots(2, 1, sharex=True)
        _heat(upper, share, profiles, "cividis", 0.0, float(share.max()), "Share of the top neurons")
        lowest = -1.0 if relative.min() < -0.005 else 0.0  # what rounds to zero is no second direction
        colours = "PuOr" if lowest else "cividis"
        _heat(lower, relative, profiles, colours, lowest, 1.0, "Summed score, relative to its row's largest")
        lower.set_xlabel("Layer")
        step = max(1, math.ceil(layers / 24))
        lower.set_xticks(range(0, layers, step), [str(layer) for layer in range(0, layers, step)])
    return figure


def faithfulness_bars(rows: Sequence[Row]) -> Figure:
    """Sufficiency and comprehensiveness of every method, one panel per metric and k; random controls in grey.

    Several rows of one method (seeds, variants) become their mean with its standard error.
    """
    panels = list(dict.fromkeys((row["metric"], row["k"]) for row in rows if _is_faithfulness(row)))
    panels.sort(key=lambda panel: (FAITHFULNESS_METRICS.index(str(panel[0])), _sortable(panel[1])))
    methods = list(dict.fromkeys(str(row["method"] or "") for row in rows if _is_faithfulness(row)))
    methods.sort(key=lambda name: name.startswith("random"))
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
            _bars(axis, rows, methods, panel)
            axis.tick_params(labelbottom=True)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        axes[0].margins(x=0.14)
        axes[0].set_xlim(left=0)
    return figure


def _heat(
    axis: Axes,
    values: np.ndarray,
    profiles: Sequence[LayerProfile],
    colours: str,
    lowest: float,
    highest: float,
    title: str,
) -> None:
    image = axis.imshow(values, cmap=colours, vmin=lowest, vmax=highest or 1.0, aspect="auto", interpolation="nearest")
    axis.set_title(title)
    names = [short(f"   {profile.label}" if profile.label else profile.method) for profile in profiles]
    axis.set_yticks(range(len(profiles)), names)
    for tick, profile in zip(axis.get_yticklabels(), profiles, strict=True):
        tick.set_fontweight("normal" if profile.label else "bold")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(profiles) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.2)
    axis.tick_params(which="minor", length=0)
    bar = axis.figure.colorbar(image, ax=axis, pad=0.015, aspect=12)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0, labelsize=8)
    if values.shape[1] <= _ANNOTATED_LAYERS:
        _annotate(axis, values, image.get_cmap(), lowest, highest or 1.0)


def _annotate(axis: Axes, values: np.ndarray, colours: Colormap, lowest: float, highest: float) -> None:
    """Write each cell's number in black or white, whichever stands out."""
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        red, green, blue, _ = colours((value - lowest) / (highest - lowest))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        text = f"{abs(value):.2f}".replace("0.", ".", 1)
        text = f"−{text}" if round(value, 2) < 0 else text
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _bars(axis: Axes, rows: Sequence[Row], methods: Sequence[str], panel: tuple[Cell, Cell]) -> None:
    metric, k = panel
    for place, name in enumerate(methods):
        found = [row for row in rows if _is_faithfulness(row) and (row["method"] or "") == name]
        mean = estimate([row for row in found if (row["metric"], row["k"]) == panel])
        if mean is None:
            continue
        value, error = mean
        control = name.startswith("random")
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


def _is_faithfulness(row: Row) -> bool:
    return row["metric"] in FAITHFULNESS_METRICS and not row["group"] and isinstance(row["value"], int | float)


def _sortable(k: Cell) -> tuple[int, float, str]:
    return (0, float(k), "") if isinstance(k, int | float) else (1, 0.0, str(k))
