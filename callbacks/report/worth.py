"""Worth of a run's methods as it was measured: a verdict in sentences, and the evidence beside each one's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twinlens.attribution.evaluation.parts import is_part
from twinlens.callbacks.results.columns import Row, is_chance, is_control, value_of, variant_text
from twinlens.callbacks.results.formatting import format_number, format_row_value, format_value, metric_label
from twinlens.callbacks.results.truth_tables import OF_INSTANCES, OF_NEURONS

EVIDENCE = (*OF_INSTANCES, *OF_NEURONS, "found", "comprehensiveness", "sufficiency", "logprob_drop")
"""Metrics that say whether a method's lists are right: against what was measured, planted or switched off."""
MAX_EVIDENCE = 5


def worth(rows: Sequence[Row], method: str) -> list[str]:
    """Evidence of a method's worth, `LDS 0.41 ± 0.02`, what was measured by retraining first; empty for none."""
    mine = [row for row in _whole(rows) if row["method"] == method and row["metric"] in EVIDENCE]
    mine.sort(key=lambda row: EVIDENCE.index(str(row["metric"])))
    names = {**OF_INSTANCES, **OF_NEURONS}
    return [
        f"{names.get(str(row['metric']), metric_label(row))} {format_row_value(row)}" for row in mine[:MAX_EVIDENCE]
    ]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What a run or the seeds of one setting found, a sentence for each lens and test; none where nothing was measured.

    Args:
        rows: of results.csv, or of summary.csv; means over several `seeds` stand with their errors.
    """
    whole = _whole(rows)
    return [sentence for metric, told in _SENTENCES.items() for sentence in _told(whole, metric, told)]


def _told(rows: Sequence[Row], metric: str, told: Callable[[Row, Row | None], str]) -> Iterator[str]:
    found = [row for row in rows if row["metric"] == metric and row["method"]]
    sizes = [row["k"] for row in found if isinstance(row["k"], int | float)]
    found = [row for row in found if not sizes or row["k"] == max(sizes)]
    methods = [row for row in found if not is_control(row)]
    if not methods:
        return
    strongest = min if metric == "comprehensiveness" else max
    controls = [row for row in found if is_chance(row)]
    yield told(strongest(methods, key=value_of), strongest(controls, key=value_of) if controls else None)


def _of_neurons(best: Row, control: Row | None) -> str:
    against = f", {control['method']} {percent(100 - value_of(control), _error(control))}" if control else ""
    changed = percent(100 - value_of(best), _error(best))
    return f"{best['method']} changes {changed} of predictions with {format_number(best['k'])} neurons{against}."


def _of_twins(best: Row, control: Row | None) -> str:
    return f"The planted twin stands first for {_count(best)} by {best['method']}" + (
        f", for {_count(control)} by {control['method']}." if control else "."
    )


def _of_correlation(told: str) -> Callable[[Row, Row | None], str]:
    """The sentence of a rank correlation: what the best method does with it, and what the control has."""

    def sentence(best: Row, control: Row | None) -> str:
        against = f", {control['method']} {format_row_value(control)}" if control else ""
        return f"{best['method']} {told} {format_row_value(best)}{against}."

    return sentence


_SENTENCES: dict[str, Callable[[Row, Row | None], str]] = {
    "comprehensiveness": _of_neurons,
    "found": _of_twins,
    "lds": _of_correlation("predicts models trained on parts of the data with a rank correlation (LDS) of"),
    "neuron_spearman": _of_correlation("orders neurons as switching each off does with a rank correlation of"),
}


def _whole(rows: Sequence[Row]) -> list[Row]:
    """Rows of all examples, of evaluations as shipped, that have a value."""
    return [
        row
        for row in rows
        if not is_part(row.get("group")) and not row.get("group") and not variant_text(row)
        and isinstance(row.get("value"), int | float)
    ]  # fmt: skip


def _error(row: Row) -> float | None:
    """Standard error of a mean over seeds; a single run's errors stand in its tables."""
    seeds, error = row.get("seeds"), row.get("stderr")
    return float(error) if isinstance(seeds, int) and seeds > 1 and isinstance(error, int | float) else None


def percent(value: float, error: float | None = None) -> str:
    """A share of 100 as it is written, `9.5 %`."""
    shown = format_number(round(value, 1)) if error is None else format_value(value, error)
    return f"{shown}\N{NO-BREAK SPACE}%"


def _count(row: Row) -> str:
    n, error = row.get("n"), _error(row)
    if isinstance(n, int):
        return f"{round(value_of(row) * n)} of {n}"
    return percent(100 * value_of(row), None if error is None else 100 * error)
