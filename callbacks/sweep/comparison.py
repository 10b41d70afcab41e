"""comparison.csv of a sweep: what methods of different jobs find in common, and how much more faithful one is.

Two jobs are compared on the same examples of the same data. A method is compared with itself in another job (another
setting, model or seed), and with methods that only the other job has; scores that both jobs link to are one and the
same and are left out, as are random controls. Pairs of methods within one job are what `evaluation=overlap` is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from twinlens.callbacks.results.columns import SETTING, SETTINGS, Cell, Row
from twinlens.callbacks.results.formatting import format_table
from twinlens.callbacks.results.run_files import ScoreSet
from twinlens.callbacks.sweep.jobs import Job
from twinlens.callbacks.sweep.shared_lists import mean_share, names_neurons, shared_instances, shared_neurons

NAMES = ("job", "model", "seed", "swept", "method")
COLUMNS = (
    "data",
    "split",
    "metric",
    "k",
    *NAMES,
    *(f"reference_{name}" for name in NAMES),
    "value",
    "stderr",
    "n",
)
DIFFERENCES = ("sufficiency", "comprehensiveness", "mrr", "prob", "logp")
"""Metrics of a method whose difference between two jobs is taken."""
MAX_PRINTED = 60


def compare(jobs: Sequence[Job]) -> list[dict[str, Cell]]:
    """Rows of comparison.csv.

    `instance_overlap_per_test`: of the first k training instances of an example's list, the share in per cent that the
    other list has too. `neuron_overlap`: neurons among the first k of both lists, in per cent of their union; for jobs
    of one model only, since neurons of two models are different things. `<metric>_difference`: the first job's
    percentage of preserved predictions, or what is left of the target without the method's neurons, minus the
    reference's, with the error of a difference of independent means.
    """
    return [row for first, second in combinations(jobs, 2) for row in compare_jobs(first, second)]


def compare_jobs(first: Job, second: Job) -> Iterator[dict[str, Cell]]:
    """The rows of one pair of jobs; none where data or explained examples differ."""
    if (
        first.data != second.data
        or first.run.split != second.run.split
        or not same_rows(first, second, first.run.split)
    ):
        return
    same_train = same_rows(first, second, "train")
    for a, b in _pairs(first, second):
        common = {"data": first.data, "split": first.run.split, **_named(first, a.name)}
        common |= {f"reference_{name}": cell for name, cell in _named(second, b.name).items()}
        index = np.intersect1d(a.rows.index, b.rows.index).tolist()
        if a.kind == "instance" and same_train:
            for k, found in shared_instances(a, b, index, index):
                yield common | {"metric": "instance_overlap_per_test", "k": k, **mean_share(found)}
        if first.model == second.model and names_neurons(a) and names_neurons(b):
            for k, found in shared_neurons(a, b, index, index):
                yield common | {"metric": "neuron_overlap", "k": k, **mean_share(found)}
        if a.kind == "neuron":
            for row in _differences(first, second, a.name, b.name):
                yield common | row


def format_comparison(rows: Sequence[Row]) -> str:
    """The comparison as text."""
    shown: list[dict[str, Cell]] = [
        {
            **row,
            "evaluation": "comparison of jobs",
            "method": f"{row['method']} (job {row['job']})",
            "reference_group": f"{row['reference_method']} (job {row['reference_job']})",
            "model": None,
            "seed": None,
            "group": None,
            **dict.fromkeys(SETTINGS),
        }
        for row in rows[:MAX_PRINTED]
    ]
    more = [f"… {len(rows) - MAX_PRINTED} more rows in comparison.csv"] if len(rows) > MAX_PRINTED else []
    return "\n".join(["", format_table(shown, {}), *more])


def _pairs(first: Job, second: Job) -> Iterator[tuple[ScoreSet, ScoreSet]]:
    """Methods of the same kind to compare, see the module."""
    of_first = {scores.name: scores for scores in first.run.scores if not scores.control}
    of_second = {scores.name: scores for scores in second.run.scores if not scores.control}
    for a in of_first.values():
        for b in of_second.values():
            swept = a.name not in of_second and b.name not in of_first
            if a.kind == b.kind and (a.name == b.name or swept) and a.rows.path.resolve() != b.rows.path.resolve():
                yield a, b


def same_rows(first: Job, second: Job, split: str) -> bool:
    """Whether a split holds the same rows of the same source in both jobs."""
    if any(not (job.run.path / "examples" / split).is_dir() for job in (first, second)):
        return False
    a, b = (job.run.examples(split) for job in (first, second))
    column = "source_index" if "source_index" in a.dataset.column_names else "index"
    return column in b.dataset.column_names and np.array_equal(a.column(column), b.column(column))


def _differences(first: Job, second: Job, a: str, b: str) -> Iterator[dict[str, Cell]]:
    def found(job: Job, method: str) -> dict[tuple[Cell, ...], Row]:
        names = ("metric", "k", "split", *(column for column in SETTINGS if column != SETTING))
        return {
            tuple(row.get(name) for name in names): row
            for row in job.rows
            if row["method"] == method and row["metric"] in DIFFERENCES and not row.get("group")
        }

    other = found(second, b)
    for key, row in found(first, a).items():
        value, reference = row["value"], other.get(key, {}).get("value")
        if not isinstance(value, int | float) or not isinstance(reference, int | float):
            continue
        error, reference_error = row.get("stderr"), other[key].get("stderr")
        known = isinstance(error, int | float) and isinstance(reference_error, int | float)
        yield {
            "metric": f"{row['metric']}_difference",
            "k": row["k"],
            "value": value - reference,
            "stderr": math.hypot(float(error or 0), float(reference_error or 0)) if known else None,
            "n": row["n"],
        }


def _named(job: Job, method: str) -> dict[str, Cell]:
    return {
        "job": job.number,
        "model": job.model,
        "seed": job.seed,
        "swept": job.swept or None,
        "method": method,
    }
