"""Faithfulness as curves over r, the number of neurons kept or zeroed, with the area under them."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.callbacks.figures.charts import (
    Chart,
    Line,
    Panel,
    Series,
    colours,
    controls_in,
    estimate,
    points_over_k,
    settings_of,
    shown_name,
    titled,
    within,
)
from twinlens.callbacks.results.columns import Row, settings_text
from twinlens.callbacks.results.formatting import format_number

METRICS = {
    "sufficiency": ("Sufficiency (↑)", "neurons kept, r"),
    "comprehensiveness": ("Comprehensiveness (↓)", "neurons zeroed, r"),
}
FEWEST = 3
"""Values of r from which points make a curve; fewer are shown as bars."""


def faithfulness_charts(rows: Sequence[Row]) -> list[Chart]:
    """The curves; none where no metric was asked at three values of r or more."""
    mine = [row for row in rows if row["metric"] in METRICS and not row.get("group")]
    areas = [row for row in rows if row["metric"] in {f"{metric}_auc" for metric in METRICS}]
    panels = []
    for setting in settings_of(mine):
        for metric in METRICS:
            found = [row for row in within(mine, setting) if row["metric"] == metric]
            if len({row["k"] for row in found}) >= FEWEST:
                panels.append(_panel(found, within(areas, setting), metric, setting))
    if not panels:
        return []
    caption = (
        "Predictions preserved while only the r best neurons are kept (sufficiency: higher is better) or while they "
        "are zeroed (comprehensiveness: lower is better). The area is that under the curve over log r, from 0 to 100."
    )
    return [Chart("faithfulness", "Faithfulness over the number of neurons", caption, tuple(panels))]


def _panel(rows: Sequence[Row], areas: Sequence[Row], metric: str, setting: tuple[str, str]) -> Panel:
    keys = dict.fromkeys((str(row["method"] or ""), settings_text(row)) for row in rows)
    controls = controls_in(rows)
    colour = colours([method for method, _ in keys], controls)
    series, notes = [], []
    for method, settings in sorted(keys, key=lambda key: key[0] in controls):
        name = f"{shown_name(method)} ({settings})" if settings else shown_name(method)
        line: Line = "dotted" if method in controls else "dashed" if settings else "solid"
        series.append(Series(name, points_over_k(_of(rows, method, settings)), colour[method], line))
        area = estimate([row for row in _of(areas, method, settings) if row["metric"] == f"{metric}_auc"])
        if area is not None:
            notes.append(f"{name} {format_number(round(area[0], 1))}")
    title, x_label = METRICS[metric]
    note = f"Area: {', '.join(notes)}" if notes else ""
    return Panel(titled(setting, title), x_label, "% preserved", tuple(series), log_x=True, note=note)


def _of(rows: Sequence[Row], method: str, settings: str) -> list[Row]:
    return [row for row in rows if (str(row["method"] or ""), settings_text(row)) == (method, settings)]
