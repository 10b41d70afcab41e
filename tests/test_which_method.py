"""docs/which_method.md has the numbers that are kept."""

from __future__ import annotations

from tests.benchmark_page import KEPT
from tests.which_method import NEURONS, PAGE, page_of, table, today
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.results_csv import read_results


def test_the_tables_are_made_of_the_kept_numbers() -> None:
    assert PAGE.read_text(encoding="utf-8") == today(), "python -m tests.which_method writes it anew"


def test_every_method_of_the_benchmark_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    measured = {str(row["method"]) for row in read_results(KEPT) if row["metric"] in ("lds", "neuron_pearson")}
    assert len(measured) > 10
    assert [name for name in measured if f"| `{name}` |" not in page and name != "other_seed"] == []


def test_the_best_stands_first_and_only_places_change() -> None:
    rows: list[Row] = [
        {"metric": metric, "method": name, "value": value, "k": 10}
        for name, value in (("worse", 0.1), ("better", 0.7))
        for metric in (*NEURONS, "processor_seconds", "memory_mib")
    ]
    lines = table(rows, NEURONS).splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == ["better", "worse"]
    assert lines[2] == "| `better` | .70 | .70 | .70 | 0.7 | 0.7 |"
    assert page_of("a\n<!-- made: x -->\nold\n<!-- end -->\nb", {"x": "new"}) == (
        "a\n<!-- made: x -->\n\nnew\n\n<!-- end -->\nb"
    )
