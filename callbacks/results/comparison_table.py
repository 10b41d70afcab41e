"""Table of paired comparisons between methods: tables/comparisons.csv of a run, or of a sweep over seeds."""

from __future__ import annotations

from collections.abc import Iterable

from twinlens.attribution.evaluation.comparisons import Comparison
from twinlens.callbacks.results.table import Table

NAME = "comparisons"
TITLE = (
    "Methods compared pair by pair on the same examples: difference of the first less the second with its 95 % "
    "interval, p of the pair alone and by Holm for all pairs of the metric"
)
COLUMNS = (
    "model", "data", "split", "evaluation", "metric", "k", "group", "variant", "method", "reference", "difference",
    "low", "high", "p", "p (Holm)", "pairs", "test", "n", "seeds",
)  # fmt: skip


def comparison_table(found: Iterable[tuple[str, str, Comparison]]) -> Table | None:
    """The table of comparisons of (model, data), None without any."""
    lines = [
        [
            *(model, data, one.split, one.evaluation, one.metric, one.k, one.group, one.variant, one.method),
            *(one.reference, one.difference, one.low, one.high, one.p, one.adjusted, one.pairs, one.test, one.n),
            one.runs,
        ]
        for model, data, one in found
    ]
    return Table(NAME, TITLE, list(COLUMNS), lines) if lines else None
