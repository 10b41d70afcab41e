"""docs/benchmark.md is what its command makes of the kept numbers."""

from __future__ import annotations

from tests.benchmark_page import KEPT, PAGE, kept_rows, page_of
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.results_csv import read_results
from twinlens.callbacks.results.truth_tables import COST


def test_the_page_is_made_of_the_kept_numbers() -> None:
    rows = read_results(KEPT)
    assert kept_rows(rows) == rows
    assert PAGE.read_text(encoding="utf-8") == page_of(rows), "python -m tests.benchmark_page writes it anew"


def test_every_truth_of_the_experiment_is_on_it() -> None:
    metrics = {row["metric"] for row in read_results(KEPT)}
    assert {"lds", "loo_pearson", "tail_patch", "mislabel_auc", "shortcut_auc", "randomised_spearman", "mrr",
            "neuron_pearson", "neuron_recall", "processor_seconds", "memory_mib"} <= metrics  # fmt: skip


def test_the_best_of_a_question_and_those_not_told_apart_from_it_are_named() -> None:
    values = {"first": 0.5, "second": 0.45, "third": 0.1}
    rows: list[Row] = [
        {"metric": "lds", "method": name, "value": value, "k": 25, "low": value - 0.1, "high": value + 0.1}
        for name, value in values.items()
    ]
    took = {"first": 9.0, "second": 1.0}
    rows += [{"metric": metric, "method": name, "value": took[name]} for name in took for metric in COST]
    line = next(line for line in page_of(rows).splitlines() if "trained on other rows" in line)
    assert "`first` (.50 [.40, .60])" in line
    assert "not told apart from it: `second` (.45)" in line
    assert "third" not in line
    assert "the cheapest of these is `second`" in line
