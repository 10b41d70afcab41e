"""The second paper's figures: where the best neurons lie (2, 5), the segments (3, 6), query neurons (4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from twinlens.callbacks.figures.charts import (
    Chart,
    Panel,
    Point,
    Series,
    colours,
    estimate,
    lines,
    points_over_k,
    settings_of,
    titled,
    within,
)
from twinlens.callbacks.figures.style import DPI, STYLE
from twinlens.callbacks.results.columns import Row, is_control, with_setting

_SEGMENTS = {"segment_logp": "log-probability (nats)", "segment_prob": "probability (%)"}
_LAYERED = {
    "neuron_layers": ("neuron_level_figure2_5", "Layers of the best neurons", ("top_neurons",)),
    "query_interventions": ("neuron_level_figure4", "Query neurons by layer", ("query_only", "query_value")),
    "prompt": ("prompt_layers", "What every layer adds", ("layer_increase",)),
}


def neuron_level_charts(rows: Sequence[Row]) -> list[Chart]:
    """All charts that the rows allow."""
    found = [chart for evaluation in _LAYERED if (chart := _layered(rows, evaluation)) is not None]
    segments = [row for row in rows if row["metric"] in _SEGMENTS]
    if segments:
        panels = tuple(
            _segments([row for row in within(segments, setting) if row["metric"] == metric], titled(setting), label)
            for setting in settings_of(segments)
            for metric, label in _SEGMENTS.items()
        )
        caption = (
            "The target's log-probability and probability along the straight line from the first hidden state "
            "(segment 0) to the last, mean over sentences."
        )
        found.append(Chart("neuron_level_figure3_6", "From the first to the last hidden state", caption, panels))
    return found


def head_heat_map(rows: Sequence[Row]) -> Figure:
    """Increase of every head (columns) of every layer (lines) of the first sentence that the prompt view shows.

    Args:
        rows: `head_increase`, named a<layer>.<head>.
    """
    first = [row for row in rows if row["group"] == rows[0]["group"]]
    places = [tuple(map(int, str(row["reference_group"])[1:].split("."))) for row in first]
    values = np.zeros((1 + max(layer for layer, _ in places), 1 + max(head for _, head in places)))
    for place, row in zip(places, first, strict=True):
        values[place] = row["value"]
    largest = float(np.abs(values).max()) or 1.0
    with rc_context(STYLE):
        size = (2.5 + 0.3 * values.shape[1], 1.4 + 0.25 * values.shape[0])
        figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
        axis = figure.subplots()
        image = axis.imshow(values, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
        axis.set_xlabel("head")
        axis.set_ylabel("layer")
        axis.set_title("Increase of the log-probability by head (nats)")
        figure.colorbar(image, ax=axis, aspect=12)
    return figure


def _segments(rows: Sequence[Row], title: str, label: str) -> Panel:
    names = list(dict.fromkeys(str(row.get("group") or "all") for row in rows))
    colour = colours(names)
    series = tuple(
        Series(
            name, points_over_k([row for row in rows if str(row.get("group") or "all") == name]), colour[name],
            line="solid" if name == "all" else "dashed", markers=False,
        )
        for name in names
    )  # fmt: skip
    return Panel(title, "segment", label, series)


def _layered(rows: Sequence[Row], evaluation: str) -> Chart | None:
    name, title, metrics = _LAYERED[evaluation]
    mine = [row for row in rows if row["evaluation"] == evaluation and row["metric"] in metrics]
    if not mine:
        return None
    panels = []
    for setting in settings_of(mine):
        own = within(mine, setting)
        keys = list(dict.fromkeys(_series_name(row) for row in own))
        colour = colours(keys, {_series_name(row) for row in own if is_control(row)})
        line = lines(colour)
        series = tuple(
            Series(key, _points([r for r in own if _series_name(r) == key]), colour[key], line[key]) for key in keys
        )
        y_label = "nats" if evaluation == "prompt" else "neurons per sentence"
        panels.append(Panel(titled(setting), "layer", y_label, series))
    return Chart(name, title, f"{title}, mean over sentences.", tuple(panels))


def _series_name(row: Row) -> str:
    if row["metric"] == "layer_increase":
        return "attention" if str(row["reference_group"]).startswith("a") else "FFN"
    return (
        with_setting(str(row["method"]), row)
        if row["metric"] == "top_neurons"
        else str(row["metric"]).replace("_", "-")
    )


def _layer(row: Row) -> int:
    return int(str(row["reference_group"])[1:] if row["metric"] == "layer_increase" else str(row["group"]))


def _points(rows: Sequence[Row]) -> tuple[Point, ...]:
    points = []
    for layer in sorted({_layer(row) for row in rows}):
        found = estimate([row for row in rows if _layer(row) == layer])
        if found is not None:
            points.append(Point(layer, *found))
    return tuple(points)
