"""Tables of docs/which_method.md, made of kept numbers: `python -m tests.which_method`.

The benchmark's rows are those of docs/benchmark.csv; the table of nearness is that of docs/ground_truth.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from tests.benchmark_page import DOCS, GROUPS, KEPT, OTHER_SEED, WORDS, cell, in_words, number
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.results_csv import read_results
from twinlens.callbacks.results.truth_tables import COST

PAGE = DOCS / "which_method.md"
TRUTH = DOCS / "ground_truth.md"
INSTANCES = {
    "lds": "other halves (LDS)",
    "loo_pearson": "leave-one-out",
    "tail_patch": "tail patch",
    "mislabel_auc": "wrong labels",
    "shortcut_auc": "artefacts",
    "mrr": "twins",
}
NEURONS = {"neuron_pearson": "Pearson", "neuron_spearman": "Spearman", "neuron_recall": "recall"}
PRICE = {"processor_seconds": "seconds", "memory_mib": "MiB"}
"""Metric → heading; the first metric orders the rows."""


def tables(rows: Sequence[Row], truth: str) -> dict[str, str]:
    """Name of a place in the page → what stands there."""
    return {
        "words": "\n".join(line for metric in WORDS if (line := in_words(rows, metric))),
        "instances": table(rows, INSTANCES),
        "neurons": table(rows, NEURONS),
        "nearness": nearness(truth),
    }


def table(rows: Sequence[Row], metrics: Mapping[str, str]) -> str:
    """Methods by metrics and price, the best by the first metric at the top."""
    own = [row for row in rows if row["method"] != OTHER_SEED and not row.get("reference_group")]
    first = {row["method"]: number(row) for row in own if row["metric"] == next(iter(metrics))}
    lines = [
        f"| | {' | '.join([*metrics.values(), *PRICE.values()])} |",
        f"|---|{'---|' * (len(metrics) + len(PRICE))}",
    ]
    for method in sorted(first, key=lambda name: -first[name]):
        cells = [shown([row for row in own if row["method"] == method and row["metric"] == name]) for name in metrics]
        took = {row["metric"]: number(row) for row in own if row["method"] == method and row["metric"] in COST}
        lines.append(f"| `{method}` | {' | '.join([*cells, *(f'{took[name]:.1f}' for name in PRICE)])} |")
    return "\n".join(lines)


def shown(found: Sequence[Row]) -> str:
    """The value of a metric that speaks for it: of its groups the one that the benchmark reads, of sizes the first."""
    chosen = [row for row in found if (row.get("group") or "") == GROUPS.get(str(row["metric"]), "")]
    return cell(chosen[0]) if chosen else ""


def nearness(truth: str) -> str:
    """The first table under its heading of docs/ground_truth.md."""
    section = truth.split("### How near each method comes", 1)[1]
    found = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert found
    return found[0].rstrip("\n")


def page_of(page: str, made: Mapping[str, str]) -> str:
    """The page with each place filled anew."""
    for name, content in made.items():
        place = re.compile(rf"(<!-- made: {name} -->\n).*?(<!-- end -->)", re.S)
        assert place.search(page), name
        page = place.sub(lambda found, content=content: f"{found[1]}\n{content}\n\n{found[2]}", page)
    return page


def today() -> str:
    """The page as today's numbers make it."""
    made = tables(read_results(KEPT), TRUTH.read_text(encoding="utf-8"))
    return page_of(PAGE.read_text(encoding="utf-8"), made)


def main() -> int:
    """Write the page."""
    PAGE.write_text(today(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
