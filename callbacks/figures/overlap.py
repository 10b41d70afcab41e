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
from twinlens.callbacks.results.columns import Row

NEURON_FIGURES = {"influence_neurons": "figure4", "gradsim_neurons": "figure5"}
SHARES = {"only_na": ("only", 0), "common": ("common", 2), "only_ia": ("only", 1)}


def overlap_charts(rows: Sequence[Row]) -> list[Chart]:
    """Figure 3 for instances, 4 and 5 for the neurons of influence and gradient similarity; those with rows."""
    return [*_instances(rows), *(chart for method in NEURON_FIGURES for chart in _neurons(rows, method))]


def _instances(rows: Sequence[Row]) -> list[Chart]:
    mine = [row for row in rows if row["metric"] == "instance_overlap"]
    settings = settings_of(mine)
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for row in mine:
        pair = (str(row["method"] or ""), str(row["reference_group"] or ""))
        pairs.setdefault(frozenset(pair), pair)  # the first n % have one size: A in B is as much as B in A
    panels = []
    for setting in settings:
        series = []
        for number, (a, b) in enumerate(pairs.values()):
            found = [
                row for row in within(mine, setting) if (row["method"] or "", row["reference_group"] or "") == (a, b)
            ]
            if found:
                colour = PALETTE[number % len(PALETTE)]
                series.append(Series(f"{shown_name(a)} and {shown_name(b)}", points_over_k(found), colour))
        panels.append(Panel(titled(setting), "first n % of the training instances", "% in both", tuple(series)))
    if not panels:
        return []
    caption = (
        "Share of the first n % most influential training instances of one method that are also among those of another."
    )
    return [Chart("figure3", "Overlap of the most influential training instances", caption, tuple(panels))]


def _neurons(rows: Sequence[Row], method: str) -> list[Chart]:
    mine = [row for row in rows if row["metric"] in SHARES and row["method"] == method]
    panels = []
    for setting in settings_of(mine):
        here = within(mine, setting)
        for reference in dict.fromkeys(str(row["reference_group"] or "ig") for row in here):
            names = {"only_na": reference, "only_ia": method}
            series = []
            for metric, (word, place) in SHARES.items():
                found = [
                    row for row in here if row["metric"] == metric and str(row["reference_group"] or "ig") == reference
                ]
                name = f"{word} {shown_name(names[metric])}" if metric in names else word
                series.append(Series(name, points_over_k(found), PALETTE[place]))
            panels.append(Panel(titled(setting), "top-n neurons", "% of the union", tuple(series), kind="shares"))
    if not panels:
        return []
    name = shown_name(method)
    caption = (
        f"Of the union of the n most important neurons of both methods: the share that only the neuron method finds, "
        f"that both find, and that only {name} finds; mean over test instances."
    )
    return [Chart(NEURON_FIGURES[method], f"Neurons found by NA and {name}", caption, tuple(panels))]
