"""Rows that others measured, in the columns of results.csv: checked (`results.check=FILE`), and shown beside a run's.

docs/results.md says what the columns mean; docs/results.schema.json says it to programs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.loading import CONFIG_DIR
from twinlens.callbacks.results.columns import ABOUT, COLUMNS, CONTROL, NEEDED, Cell, Row
from twinlens.callbacks.results.results_csv import read_results, read_table, write_results
from twinlens.callbacks.results.run_files import BESIDE_FILE, RunFiles
from twinlens.callbacks.results.truth_tables import OF_INSTANCES, OF_NEURONS
from twinlens.conf.checking.suggestions import nearest
from twinlens.data.row_choice import SPLITS

REMEDY = "see docs/results.md for the columns and their cells"
SAME = ("model", "data")
"""Columns in which rows of others agree with the run that they stand beside."""


def checked_rows(path: Path) -> list[dict[str, Cell]]:
    """The rows of a file in the columns of results.csv, each looked at.

    Raises:
        UserError: with file, line and column: a cell that a row needs and lacks, a number that is none or not finite,
            a split that no data have, a negative error, an interval from high to low, a mark of controls that is not
            `true`, or two rows that measure the same.
    """
    rows = read_results(path, REMEDY)
    lines = [number for number, _ in read_table(path, NEEDED, REMEDY)]
    if not rows:
        raise UserError(f"{path} has a header and no row; expected one row for each number: {REMEDY}.")
    seen: dict[tuple[Cell, ...], int] = {}
    for line, row in zip(lines, rows, strict=True):
        for column, said in _faults(row):
            cell = "empty" if row[column] is None else repr(row[column])
            raise UserError(f"Column {column} in line {line} of {path} is {cell}; expected {said}: {REMEDY}.")
        key = tuple(row[name] for name in (*ABOUT, "seed"))
        if key in seen:
            raise UserError(
                f"Line {line} of {path} measures the same as line {seen[key]}; expected rows that differ in one of "
                f"{', '.join((*ABOUT, 'seed'))}: leave one out, or say in `setting` or `variant` how they differ."
            )
        seen[key] = line
    return rows


def _faults(row: Row) -> list[tuple[str, str]]:
    """Columns of a row that hold what they may not, with what was expected; in their order."""
    found = [(name, "a name, which every row has") for name in NEEDED if name != "value" and not _text(row, name)]
    if row["value"] is None:
        found.append(("value", "a number, which every row has"))
    for name, column in COLUMNS.items():
        cell = row[name]
        if isinstance(cell, float) and not math.isfinite(cell) and column.kind == "number":
            found.append((name, "a finite number"))
    if isinstance(row["stderr"], int | float) and row["stderr"] < 0:
        found.append(("stderr", "an error of 0 or more"))
    if isinstance(row["n"], int) and row["n"] < 1:
        found.append(("n", "at least one example"))
    if row["split"] not in (None, *SPLITS):
        found.append(("split", ", ".join(SPLITS) + " or nothing"))
    if row[CONTROL] not in (None, "true"):
        found.append((CONTROL, "true, or nothing"))
    low, high = row["low"], row["high"]
    if (low is None) != (high is None):
        found.append(("low" if low is None else "high", "both ends of the interval, or neither"))
    elif isinstance(low, float) and isinstance(high, float) and low > high:
        found.append(("low", f"an end that is not above high, {high:g}"))
    return found


def _text(row: Row, name: str) -> str:
    """A cell without the spaces around it."""
    return str(row[name] or "").strip()


def remarks(rows: Sequence[Row]) -> list[str]:
    """Sentences on what is allowed and may yet be a slip: columns, metrics and evaluations that this version does not
    know, and values outside of their intervals."""
    others = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    told = [f"column {name} is none of results.csv's and is not shown" for name in others]
    known = [*OF_INSTANCES, *OF_NEURONS]
    for metric in dict.fromkeys(str(row["metric"]) for row in rows):
        near = nearest(metric, known)
        if metric not in known and near is not None:
            told.append(f"metric {metric} stands in no table of ground truth; did you mean {near}?")
    evaluations = sorted(file.stem for file in (CONFIG_DIR / "evaluation").glob("*.yaml"))
    for evaluation in dict.fromkeys(str(row["evaluation"]) for row in rows):
        near = nearest(evaluation, evaluations)
        if evaluation not in evaluations and near is not None:
            told.append(f"evaluation {evaluation} is none of twinlens; did you mean {near}?")
    return told + [
        f"{row['metric']} of {row['method'] or 'the model'} is {row['value']:g}, outside of its interval "
        f"{row['low']:g} to {row['high']:g}"
        for row in rows
        if all(isinstance(row[name], float) for name in ("value", "low", "high"))
        and not float(row["low"] or 0) <= float(row["value"] or 0) <= float(row["high"] or 0)
    ]


def put_beside(run_dir: Path, paths: Sequence[str | Path]) -> None:
    """Keep rows of others in a run's folder, where its tables, figures and page show them; none takes them away.

    Args:
        run_dir: the run's folder.
        paths: files in the columns of results.csv.

    Raises:
        UserError: see `checked_rows`; or a row is of another model or other data than the run, or names a method that
            the run has measured itself or another file brings.
    """
    own = RunFiles(run_dir).own_results
    taken = {str(row["method"]): "the run itself" for row in own if row["method"]}
    kept: list[Mapping[str, Any]] = []
    for path in map(Path, paths):
        rows = checked_rows(path)
        for line, row in zip((number for number, _ in read_table(path, NEEDED, REMEDY)), rows, strict=True):
            _require_fit(row, line, path, own, taken)
        kept += rows
        taken |= {str(row["method"]): str(path) for row in rows}
        methods = ", ".join(dict.fromkeys(str(row["method"]) for row in rows))
        print(f"beside: {len(rows)} row(s) of {path}, of {methods}", flush=True)
        for remark in remarks(rows):
            print(f"beside: {remark}", flush=True)
    if kept:
        write_results(run_dir / BESIDE_FILE, kept)
    else:
        (run_dir / BESIDE_FILE).unlink(missing_ok=True)


def _require_fit(row: Row, line: int, path: Path, own: Sequence[Row], taken: Mapping[str, str]) -> None:
    """Refuse a row that cannot stand in the run's tables."""
    for name in SAME:
        there = list(dict.fromkeys(str(one[name]) for one in own))
        if str(row[name]) not in there:
            raise UserError(
                f"Column {name} in line {line} of {path} is {row[name]!r}, and the run's is {', '.join(there)}; "
                "expected rows of the same model and data: leave the row out, or put it beside a run of its own."
            )
    method = str(row["method"] or "")
    if not method or method in taken:
        whose = f", which {taken[method]} measures too" if method else ""
        raise UserError(
            f"Column method in line {line} of {path} is {method!r}{whose}; expected a name that nobody else has here: "
            "rename it, for example with the name of your library in front."
        )


def results_command(config: Any) -> dict[str, float]:
    """Check a file of results if the configuration says so, which is then all that happens.

    Returns:
        How many rows it has; empty where the configuration asks for a run.

    Raises:
        UserError: see `checked_rows`.
    """
    path = (config.get("results") or {}).get("check")
    if path is None:
        return {}
    rows = checked_rows(Path(path))
    for remark in remarks(rows):
        print(f"results: {remark}", flush=True)
    methods = len({row["method"] for row in rows})
    print(f"results: {path} is in order, {len(rows)} row(s) of {methods} method(s)", flush=True)
    return {"results/rows": float(len(rows))}
