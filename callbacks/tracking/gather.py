"""Gathering what a finished run or sweep hands to trackers, from its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from twinlens.callbacks.results.columns import COLUMNS, Cell, Row
from twinlens.callbacks.results.outcomes import FILE
from twinlens.callbacks.results.run_files import WARNINGS_FILE, RunFiles
from twinlens.callbacks.tracking.example_table import example_table
from twinlens.callbacks.tracking.findings import Bundle, Findings, Sheet, files_below, sheet_of
from twinlens.callbacks.tracking.names import finite, free_name, number_name, numbers_of

RESULT_FILES = ("results.csv", "metrics.json", FILE, "config.yaml", "overrides.yaml", WARNINGS_FILE)
"""Files of a run that a bundle of scores always holds, where they are there."""
WEIGHTS = (".safetensors", ".bin", ".pt")
"""Endings of files of weights."""


def findings_of_run(
    folder: Path, rows: Sequence[Row], facts: Mapping[str, float], weights: str, fitted: bool
) -> Findings:
    """What trackers get of a finished run.

    Args:
        folder: of the run, its report written.
        rows: of results.csv.
        facts: numbers of the run that are no results, such as `time/fit`.
        weights: fingerprint of the model's weights.
        fitted: whether this run trained them; else it used what was there.

    Raises:
        UserError: a file of the run is damaged (named).
    """
    run = RunFiles(folder)
    sheets = {"results": sheet_of(rows, list(COLUMNS), "results.csv")}
    if run.scores:
        sheets["examples"] = example_table(run)
    named = numbers_of(rows, facts)
    numbers = finite(named)
    return Findings(folder, numbers, sheets, run.figures, _bundles(folder, weights, fitted), _said(named, sheets))


def findings_of_sweep(
    folder: Path,
    jobs: Sequence[Row],
    summary: Sequence[Row],
    sheets: Mapping[str, tuple[Sequence[str], Sequence[Mapping[str, Cell]]]],
) -> Findings:
    """What trackers get of a sweep that has ended, in a run of its own.

    Args:
        folder: of the sweep.
        jobs: rows of sweep.csv.
        summary: rows of summary.csv, whose means are its numbers; what was swept leads their names.
        sheets: name of a table → its columns and rows.
    """
    found: dict[str, float] = {}
    for row in summary:
        about = [str(row[name]) for name in ("model", "data", "swept") if row.get(name)]
        if isinstance(value := row.get("value"), int | float):
            found[free_name(number_name(row, " ".join(about)), found)] = float(value)
    found |= {"sweep/jobs": float(len(jobs)), "sweep/done": float(sum(row["status"] == "done" for row in jobs))}
    tables = {name: sheet_of(rows, columns, f"{name}.csv") for name, (columns, rows) in sheets.items()}
    figures = sorted((folder / "figures").glob("*.png"))
    return Findings(folder, finite(found), tables, figures, (), _said(found, tables))


def _bundles(folder: Path, weights: str, fitted: bool) -> list[Bundle]:
    """The model, the scores made of it, and the report made of those."""
    model_files = files_below(folder / "model")
    large = {name: path for name, path in model_files.items() if path.suffix in WEIGHTS}
    small = {name: path for name, path in model_files.items() if name not in large}
    name = re.sub(r"[^\w.-]+", "-", folder.name)
    model = Bundle(f"model-{weights[:12]}", "model", small, large, {"weights": weights}, made_here=fitted)
    results = {file: folder / file for file in RESULT_FILES if (folder / file).is_file()}
    scores = Bundle(
        f"scores-{name}", "scores", results, files_below(folder / "scores", "scores"), {"made of": model.name}
    )
    page = {"report.html": folder / "report.html", **files_below(folder / "tables", "tables")}
    return [model, scores, Bundle(f"report-{name}", "report", page, facts={"made of": scores.name})]


def _said(numbers: Mapping[str, float], sheets: Mapping[str, Sheet]) -> list[str]:
    """Sentences on what trackers do not get."""
    lost = [name for name in numbers if name not in finite(numbers)]
    said = [f"{len(lost)} number(s) are not finite and are left out, the first is {lost[0]}"] if lost else []
    return said + [f"the table {name} holds {sheet.cut}" for name, sheet in sheets.items() if sheet.cut]
