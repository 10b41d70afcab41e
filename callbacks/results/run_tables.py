"""The papers' tables of a run, and the published figures beside its results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from twinlens.attribution.evaluation.comparisons import compare_methods
from twinlens.attribution.evaluation.diversity_series import DESCRIBED
from twinlens.attribution.evaluation.parts import is_part
from twinlens.callbacks.results.columns import Cell, Row
from twinlens.callbacks.results.comparison_table import comparison_table
from twinlens.callbacks.results.formatting import format_table
from twinlens.callbacks.results.neuron_level_tables import neuron_level_tables
from twinlens.callbacks.results.outcomes import FILE, read_outcomes
from twinlens.callbacks.results.published import explain_mismatch, with_published
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.site_tables import site_tables
from twinlens.callbacks.results.told_rows import new_rows
from twinlens.callbacks.results.unified_tables import unified_tables

LISTS = frozenset({"vocabulary_token", "segment_logp", "segment_prob", "label_count", "designed_accuracy", *DESCRIBED})
"""Metrics with a row for every entry of a list, or point of a curve, too long for a terminal; tables and
figures show them."""

AnyRow = TypeVar("AnyRow", bound=Row)


def n_train(run: RunFiles) -> int | None:
    """Training rows of a run, None where it keeps none."""
    return len(run.examples("train").dataset) if (run.path / "examples" / "train").is_dir() else None


def published_rows(run: RunFiles) -> list[dict[str, Cell]]:
    """The rows of results.csv with a paper's figure in `published` wherever the run is comparable with it."""
    return with_published(run.results, run.config, n_train(run))


def printed_results(run: RunFiles, directions: Mapping[str, str], told: Collection[str] = ()) -> str:
    """What the terminal shows of results.csv, with a note where published figures are left out.

    A job of a sweep shows the rows that no earlier job has shown, see `new_rows`.

    Args:
        run: its files.
        directions: metric → which direction is better.
        told: evaluations that have printed their results in words already.
    """
    rows = published_rows(run)
    shown = [row for row in printable(rows) if row["evaluation"] not in told]
    left = len(rows) - len(shown)
    rest = f"{left} more rows, of lists, maps and parts of the examples, are in results.csv" if left else ""
    new, earlier = new_rows(shown, run.path), ""
    if same := len(shown) - len(new):
        earlier = f"{same} rows are as an earlier job of this sweep printed them; results.csv has all {len(rows)}"
    table = format_table(new, directions) if new or not (rest or earlier) else ""
    return "\n".join(filter(None, [table, earlier, rest, mismatch_note(run)]))


def printable(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """The rows that a terminal shows: none of lists, maps and parts of the examples."""
    return [row for row in rows if row["metric"] not in LISTS and not is_part(row["group"])]


def mismatch_note(run: RunFiles) -> str:
    """Why published figures are left out although model and data have some; empty otherwise."""
    return explain_mismatch(run.results, run.config, n_train(run))


def train_sizes(run: RunFiles) -> dict[tuple[str, str], int]:
    """Training rows by (model, data) of the run's results."""
    size = n_train(run)
    return {} if size is None else {(str(row["model"]), str(row["data"])): size for row in run.results}


def write_tables(run: RunFiles) -> list[Path]:
    """Write the papers' tables that the run's results allow to <run>/tables."""
    rows = published_rows(run)
    tables = [*unified_tables(rows, train_sizes(run)), *site_tables(rows), *neuron_level_tables(rows)]
    model, data = next(((str(row["model"]), str(row["data"])) for row in rows), ("", ""))
    compared = comparison_table((model, data, one) for one in compare_methods(read_outcomes(run.path / FILE)))
    return [table.write(run.path / "tables") for table in [*tables, *([compared] if compared else [])]]
