"""Figures 3, 4 and 5: what two methods find in common, instances and neurons."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.callbacks.figures.charts import (
    PALETTE,
    Chart,
    Panel,
    Series,
    points_over_k,
    settings_of,
    shown_name,
    titled,
    within,
)
from twinlens.callbacks.results.columns import SETTING, Row, with_setting

NEURON_FIGURES = {"influence_neurons": "figure4", "gradsim_neurons": "figure5"}
SHARES = {"only_na": ("only", 0), "common": ("common", 2), "only_ia": ("only", 1)}


def overlap_charts(rows: Sequence[Row]) -> list[Chart]:
    """Figure 3 for instances, 4 and 5 for the neurons of influence and gradient similarity; those with rows."""
    return [*_instances(rows), *(chart for method in NEURON_FIGURES for chart in _neurons(rows, method))]


def _instances(rows: Sequence[Row]) -> list[Chart]:
    mine = [row for row in rows if row["metric"] == "instance_overlap"]
    settings = settings_of(mine)
    pairs: dict[tuple[frozenset[str], frozenset[str]], tuple[str, str, str]] = {}
    for row in mine:
        pair = (str(row["method"] or ""), str(row["reference_group"] or ""), str(row.get(SETTING) or ""))
        same = frozenset(pair[:2]), _settings_of_both(row)
        pairs.setdefault(same, pair)  # the first n % have one size: A in B is as much as B in A
    panels = []
    for setting in settings:
        series = []
        for number, (a, b, of_methods) in enumerate(pairs.values()):
            found = [
                row
                for row in within(mine, setting)
                if (row["method"] or "", row["reference_group"] or "", row.get(SETTING) or "") == (a, b, of_methods)
            ]
            if found:
                colour = PALETTE[number % len(PALETTE)]
                name = with_setting(f"{shown_name(a)} and {shown_name(b)}", found[0])
                series.append(Series(name, points_over_k(found), colour))
        panels.append(Panel(titled(setting), "first n % of the training instances", "% in both", tuple(series)))
    if not panels:
        return []
    caption = (
        "Share of the first n % most influential training instances of one method that are also among those of another."
    )
    return [Chart("figure3", "Overlap of the most influential training instances", caption, tuple(panels))]


def _settings_of_both(row: Row) -> frozenset[str]:
    """The settings of a row's two methods, the same whichever of them stands first."""
    own, other = f"{row['method']}.", f"{row['reference_group']}."
    parts = [part for part in str(row.get(SETTING) or "").split(";") if part]
    return frozenset(part if part.startswith((own, other)) else own + part for part in parts)


def _neurons(rows: Sequence[Row], method: str) -> list[Chart]:
    mine = [row for row in rows if row["metric"] in SHARES and row["method"] == method]
    panels = []
    for setting in settings_of(mine):
        here = within(mine, setting)
        for reference, of_methods in dict.fromkeys(map(_beside, here)):
            names = {"only_na": reference, "only_ia": method}
            series = []
            for metric, (word, place) in SHARES.items():
                found = [row for row in here if row["metric"] == metric and _beside(row) == (reference, of_methods)]
                name = f"{word} {shown_name(names[metric])}" if metric in names else word
                series.append(Series(name, points_over_k(found), PALETTE[place]))
            title = titled(setting) + (f" [{of_methods}]" if of_methods else "")
            panels.append(Panel(title, "top-n neurons", "% of the union", tuple(series), kind="shares"))
    if not panels:
        return []
    name = shown_name(method)
    caption = (
        f"Of the union of the n most important neurons of both methods: the share that only the neuron method finds, "
        f"that both find, and that only {name} finds; mean over test instances."
    )
    return [Chart(NEURON_FIGURES[method], f"Neurons found by NA and {name}", caption, tuple(panels))]


def _beside(row: Row) -> tuple[str, str]:
    """The neuron method that a row compares with, and the settings of both."""
    return str(row["reference_group"] or "ig"), str(row.get(SETTING) or "")
