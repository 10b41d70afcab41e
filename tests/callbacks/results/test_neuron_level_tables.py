"""The second paper's tables and figures from results rows, published figures beside them where model and data match."""

from __future__ import annotations

from tests.callbacks.results.test_results_csv import row
from twinlens.callbacks.figures.neuron_level import head_heat_map, neuron_level_charts
from twinlens.callbacks.results.neuron_level_tables import neuron_level_tables
from twinlens.callbacks.results.published import with_published


def of(evaluation: str, metric: str, value: float, **cells: object) -> dict:
    blank = {"model": "gpt2large", "data": "knowledge", "group": None, "reference_group": None, "k": None}
    return row(**{**blank, "method": None, "evaluation": evaluation, "metric": metric, "value": value, **cells})


ROWS = [
    of("interventions", "mrr", 0.4, method="original"),
    of("interventions", "mrr", 0.2, method="logprob_increase", k=10),
    of("head_importance", "mrr_decrease", 30.0, group="capital", reference_group="language", low=28.0, high=32.5),
    of("layer_importance", "layer_place", 2.0, group="language", reference_group="a26", stderr=None),
    of("neuron_layers", "top_neurons", 3.0, method="log_prob", group="1", k=10),
    of("segments", "segment_prob", 3.0, k=0),
    of("segments", "segment_prob", 9.0, k=1),
]


def test_tables_have_the_published_figures_beside_them() -> None:
    tables = {table.name: table for table in neuron_level_tables(with_published(ROWS, {"data": {"name": "knowledge"}}))}
    assert set(tables) == {"neuron_level_table2", "neuron_level_table4", "neuron_level_table11"}
    assert tables["neuron_level_table2"].header == [
        "model", "type", "method", "k", "mrr", "low", "high", "published",
    ]  # fmt: skip
    assert [line[4::3] for line in tables["neuron_level_table2"].lines] == [[0.4, 0.361], [0.2, 0.201]]
    assert tables["neuron_level_table4"].lines == [["gpt2large", "language", "a26", 2.0, 1.0]]
    assert tables["neuron_level_table11"].lines == [["gpt2large", "language", 30.0, 28.0, 32.5, 33.0]]


def test_figures_by_layer_and_segment() -> None:
    charts = {chart.name: chart for chart in neuron_level_charts(ROWS)}
    assert set(charts) == {"neuron_level_figure2_5", "neuron_level_figure3_6"}
    assert [(p.x, p.y) for p in charts["neuron_level_figure2_5"].panels[0].series[0].points] == [(1, 3.0)]
    probability = charts["neuron_level_figure3_6"].panels[1].series[0]
    assert [(p.x, p.y) for p in probability.points] == [(0.0, 3.0), (1.0, 9.0)]


def test_heads_of_a_prompt_are_a_map_of_layers_and_heads() -> None:
    rows = [
        of("prompt", "head_increase", layer - head, group="0", reference_group=f"a{layer}.{head}")
        for layer in range(2)
        for head in range(3)
    ]
    image = head_heat_map(rows).axes[0].get_images()[0].get_array()
    assert image.tolist() == [[0, -1, -2], [1, 0, -1]]
