"""The second paper's tables made of results rows, laid out as in print, with the published figures beside them.

They are tables/neuron_level_table2.csv … neuron_level_table14.csv; the prompt view's parts are tables/prompt_*.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twinlens.callbacks.results.columns import Row, variant_text, with_setting
from twinlens.callbacks.results.table import Table, grid

PREFIX = "neuron_level_table"


@dataclass(frozen=True)
class Layout:
    """How rows of some metrics become a table.

    Attributes:
        keys: columns of results that name a line, and what they are called.
        column: what a value column is called.
    """

    name: str
    title: str
    evaluation: str
    metrics: tuple[str, ...]
    keys: Mapping[str, str]
    column: Callable[[Row], str]


def _by_type(row: Row) -> str:
    return str(row.get("group") or "all types")


def _metric(row: Row) -> str:
    return str(row["metric"])


def _metric_by_type(row: Row) -> str:
    return f"{row['metric']} {_by_type(row)}"


_SITE = {"model": "model", "reference_group": "site"}
_SUM = {"model": "model", "reference_group": "site", "metric": "sum over", "k": "k"}
_CONTROL = {"model": "model", "method": "zeroed", "k": "k"}
_SUMS = ("increase_all", "increase_positive", "increase_top", "distinct_neurons")
_DECREASES = ("mrr_decrease", "prob_decrease")
_TYPED = {"model": "model", "group": "type"}


def _place(name: str, title: str, evaluation: str, metric: str, what: str) -> Layout:
    return Layout(name, title, evaluation, (metric,), {**_TYPED, "reference_group": what}, lambda row: "place")


LAYOUTS = (
    Layout(
        f"{PREFIX}2",
        "MRR, probability (%) and log-probability of the target after zeroing the best neurons of every score",
        "interventions",
        ("mrr", "prob", "logp"),
        {"model": "model", "group": "type", "method": "method", "k": "k"},
        _metric,
    ),
    Layout(
        f"{PREFIX}3",
        "What all attention and FFN layers add to the log-probability",
        "layer_importance",
        ("layer_sum",),
        _SITE,
        _by_type,
    ),
    _place(f"{PREFIX}4", "Most important layers", "layer_importance", "layer_place", "layer"),
    Layout(f"{PREFIX}5_12", "Sums of neurons' log-probability increases", "importance_sums", _SUMS, _SUM, _by_type),
    _place(f"{PREFIX}6", "Query layers of the best FFN value neurons", "query_layers", "ffn_query_place", "layer"),
    Layout(
        f"{PREFIX}7",
        "Decrease (%) of MRR and probability without the best query neurons",
        "query_interventions",
        _DECREASES,
        _CONTROL,
        _metric_by_type,
    ),
    Layout(
        f"{PREFIX}8",
        "Shared neurons, % of a list",
        "shared_neurons",
        ("shared_neurons",),
        {"model": "model", "reference_group": "role", "k": "top"},
        _by_type,
    ),
    Layout(
        f"{PREFIX}9",
        "Neurons in vocabulary space",
        "shared_neurons",
        ("vocabulary_token",),
        {**_TYPED, "method": "role", "reference_group": "neuron and token", "k": "place"},
        lambda row: "score",
    ),
    _place(f"{PREFIX}10", "Most important heads", "head_importance", "head_place", "head"),
    Layout(
        f"{PREFIX}11",
        "Decrease (%) of MRR and probability of each type (columns) without the best heads of another (lines)",
        "head_importance",
        _DECREASES,
        {"model": "model", "reference_group": "heads of"},
        _metric_by_type,
    ),
    Layout(
        f"{PREFIX}13",
        "Decrease (%) of MRR and probability without the best value neurons",
        "value_interventions",
        _DECREASES,
        _CONTROL,
        _metric_by_type,
    ),
    _place(
        f"{PREFIX}14",
        "Query layers of the best attention value neurons",
        "query_layers",
        "attention_query_place",
        "layer",
    ),
    Layout(
        "prompt_heads_by_position",
        "Heads by position: increase of the log-probability (nats)",
        "prompt",
        ("head_position",),
        {"group": "sentence", "reference_group": "head"},
        lambda row: f"token {row['k']}",
    ),
    Layout(
        "prompt_neurons",
        "Best value and query neurons",
        "prompt",
        ("value_neuron", "query_neuron"),
        {"group": "sentence", "method": "kind", "k": "place", "reference_group": "neuron"},
        lambda row: "increase",
    ),
    Layout(
        "prompt_tokens",
        "Tokens that the best neurons stand for",
        "prompt",
        ("vocabulary_token",),
        {"group": "sentence", "method": "kind", "reference_group": "neuron and token", "k": "place"},
        lambda row: "score",
    ),
)


def neuron_level_tables(rows: Sequence[Row]) -> list[Table]:
    """All tables that the rows allow.

    Args:
        rows: of results.csv, with `published` where known.
    """
    found = []
    for layout in LAYOUTS:
        mine = [
            row
            for row in rows
            if row["evaluation"] == layout.evaluation and row["metric"] in layout.metrics and not variant_text(row)
        ]
        table = grid(layout.name, layout.title, tuple(layout.keys.values()), mine, _label(layout), layout.column)
        if table is not None:
            found.append(table)
    return found


def _label(layout: Layout) -> Callable[[Row], tuple[str, ...]]:
    def cell(row: Row, key: str) -> str:
        text = "" if row.get(key) is None else str(row[key])
        return with_setting(text, row) if key == "method" else text

    return lambda row: tuple(cell(row, key) for key in layout.keys)
