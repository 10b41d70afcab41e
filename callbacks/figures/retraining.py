"""Figures 2 and 6: the model fine-tuned on the first n % of the training instances."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.callbacks.figures.charts import (
    GREY,
    Chart,
    Line,
    Panel,
    Point,
    Series,
    colours,
    controls_in,
    points_over_k,
    settings_of,
    shown_name,
    titled,
    within,
)
from twinlens.callbacks.results.columns import Row, settings_text

METRICS = {"accuracy": "accuracy", "preserved": "predictions preserved"}
LINES: dict[str, Line] = {"most": "solid", "least": "dashed", "random": "dotted"}


def retraining_charts(rows: Sequence[Row]) -> list[Chart]:
    """Figure 2 for the first model of the rows, Figure 6 for all models and data sets; none without retraining rows."""
    mine = [row for row in rows if row["evaluation"] == "retraining" and row["metric"] in METRICS]
    if not mine:
        return []
    accuracy = [row for row in rows if row["evaluation"] == "accuracy" and row["metric"] == "accuracy"]
    caption = (
        "The model fine-tuned on the first n % of the training instances of each method, most or least influential "
        "first, and on as many random ones: test accuracy, and the share of the original model's predictions that are "
        "preserved. Grey line: the model trained on all instances."
    )
    settings = settings_of(mine)
    first = [setting for setting in settings if setting[0] == settings[0][0]]
    panels = {setting: _panels(within(mine, setting), within(accuracy, setting), setting) for setting in settings}
    return [
        Chart(
            name,
            title,
            caption,
            tuple(panel for setting in chosen for panel in panels[setting]),
        )
        for name, title, chosen in (
            ("figure2", f"Performance with the first n % of the training instances, {settings[0][0]}", first),
            ("figure6", "Performance with the first n % of the training instances, all models and data", settings),
        )
    ]


def _panels(rows: Sequence[Row], accuracy: Sequence[Row], setting: tuple[str, str]) -> list[Panel]:
    panels = []
    names = list(dict.fromkeys(str(row["method"] or "") for row in rows))
    controls = controls_in(rows)
    colour = colours(names, controls)
    for metric, label in METRICS.items():
        shown = [row for row in rows if row["metric"] == metric]
        if not shown:
            continue
        series = []
        for key in sorted(dict.fromkeys(map(_key, shown)), key=lambda key: key[0] in controls):
            method, group, like, settings = key
            found = [row for row in shown if _key(row) == key]
            name = shown_name(method) if group in ("random", "") else f"{shown_name(like or method)}-{group}"
            name = f"{name} ({settings})" if settings else name
            line = LINES.get(group, "solid")
            series.append(Series(name, points_over_k(found), colour[method], line))
        ends = [point.x for one in series for point in one.points]
        test = [row["value"] for row in accuracy if row["split"] == "test" and not row.get("group")]
        values = [float(value) for value in test if isinstance(value, int | float)]
        if metric == "accuracy" and values and ends:
            level = sum(values) / len(values)
            both = (Point(min(ends), level), Point(max(ends), level))
            series.append(Series("all instances", both, GREY, "solid", markers=False))
        panels.append(
            Panel(titled(setting, label.capitalize()), "first n % of the training instances", label, tuple(series))
        )
    return panels


def _key(row: Row) -> tuple[str, str, str, str]:
    """What a line is of; of a control with the labels of another method's rows, that method as well."""
    method, group, like = (str(row[name] or "") for name in ("method", "group", "reference_group"))
    return method, group, like, settings_text(row)
