"""Charts and layer heat maps of a run as data, which the page draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from twinlens.callbacks.figures.charts import Chart
from twinlens.callbacks.figures.layer_profiles import LayerProfile
from twinlens.callbacks.results.formatting import format_number


def chart_data(chart: Chart) -> dict[str, Any]:
    """One figure of panels of lines or stacked shares; a value without an error has none."""
    number = f"Figure {chart.name.removeprefix('figure')}" if chart.name[-1:].isdigit() else ""
    return {
        "kind": "chart",
        "name": chart.name,
        "title": f"{number}: {chart.title}" if number else chart.title,
        "caption": chart.caption,
        "panels": [
            {
                "title": panel.title,
                "x": panel.x_label,
                "y": panel.y_label,
                "shares": panel.kind == "shares",
                "log": panel.log_x,
                "note": panel.note,
                "series": [
                    {
                        "name": one.name,
                        "colour": one.colour,
                        "line": one.line,
                        "markers": one.markers,
                        "x": [point.x for point in one.points],
                        "y": [_finite(point.y) for point in one.points],
                        "error": [_finite(point.error) for point in one.points],
                    }
                    for one in panel.series
                ],
            }
            for panel in chart.panels
        ],
    }


def heat_maps(profiles: Sequence[LayerProfile]) -> list[dict[str, Any]]:
    """Where in the network listed neurons lie: their share of each layer, and their summed score; none without any."""
    if not profiles:
        return []
    examples = max(profile.examples for profile in profiles)
    means = [float(round(profile.listed)) for profile in profiles]
    low, high = format_number(min(means)), format_number(max(means))
    listed = low if low == high else f"{low} to {high}"
    names = [f"{profile.method} · {profile.label}" if profile.label else profile.method for profile in profiles]
    return [
        {
            "kind": "heat",
            "name": "layer_shares",
            "title": "Share of the listed neurons in each layer",
            "caption": f"Per cent of each method's listed neurons ({listed} per example) over {examples} examples.",
            "rows": names,
            "unit": "%",
            "values": [[round(100 * value, 3) for value in profile.share.tolist()] for profile in profiles],
            "relative": False,
        },
        {
            "kind": "heat",
            "name": "layer_scores",
            "title": "Summed score of the listed neurons in each layer",
            "caption": "Mean over examples, in each method's own unit; shades are relative to each row's largest.",
            "rows": names,
            "unit": "",
            "values": [[float(f"{value:.4g}") for value in np.nan_to_num(profile.score)] for profile in profiles],
            "relative": True,
        },
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
