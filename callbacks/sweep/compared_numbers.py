"""Numbers and settings of several runs side by side, with the differences to the first run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from twinlens.attribution.evaluation.comparisons import Measured
from twinlens.callbacks.report.sections import flat
from twinlens.callbacks.results.columns import SETTING, Cell
from twinlens.callbacks.results.outcomes import FILE, read_outcomes, without_control
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.sweep.compared_runs import ComparedRuns
from twinlens.callbacks.sweep.packed_numbers import OF_NUMBERS

KEYS = tuple(name for name in OF_NUMBERS if name != SETTING)
"""What a number is of in every run; a method's own settings are what runs may differ in."""
OF_NO_NUMBER = ("paths", "logger", "callbacks", "name", "tags", "overwrite", "plan", "store", "report", "allow_targets")
"""Groups and keys of a configuration that change no number."""


@dataclass(frozen=True)
class Number:
    """One number in all runs.

    Attributes:
        about: what it is of, by column.
        row: of results.csv, of the first run that has it.
        values, errors: by run, None where it has none.
        differences: each run's value less the first run's, with the standard error and whether that is paired.
    """

    about: Mapping[str, Cell]
    row: Mapping[str, Cell]
    values: tuple[float | None, ...]
    errors: tuple[float | None, ...]
    differences: tuple[tuple[float | None, float | None, bool], ...]


def compared_numbers(compared: ComparedRuns) -> list[Number]:
    """Every number that a run has, in the order of the runs.

    Where all runs explain the same examples and keep a value for each, the error of a difference is that of the mean
    of the examples' differences; otherwise that of a difference of independent means.
    """
    by_run = [{_key(row): row for row in run.results} for run in compared.runs]
    samples = [_samples(run) for run in compared.runs] if _same_examples(compared) else [{} for _ in by_run]
    found = []
    for key in dict.fromkeys(key for rows in by_run for key in rows):
        rows = [rows.get(key) for rows in by_run]
        values = tuple(_number(row, "value") for row in rows)
        errors = tuple(_number(row, "stderr") for row in rows)
        of_examples = [of_run.get(_measured_key(dict(zip(KEYS, key, strict=True)))) for of_run in samples]
        differences = tuple(
            _difference(values, errors, of_examples, run, len(compared.tests.index[0]))
            for run in range(1, len(rows))
        )  # fmt: skip
        first = next(row for row in rows if row is not None)
        found.append(Number(dict(zip(KEYS, key, strict=True)), first, values, errors, differences))
    return found


def compared_settings(runs: Sequence[RunFiles]) -> list[tuple[str, list[str | None]]]:
    """Settings of config.yaml that are not the same in all runs, None where a run has no such key.

    Classes of 0.1.0 are called without `twinlens.`, which is no difference.
    """
    kept = [{name: value for name, value in run.config.items() if name not in OF_NO_NUMBER} for run in runs]
    by_run = [{key: value.removeprefix("twinlens.") for key, value in flat(settings)} for settings in kept]
    keys = dict.fromkeys(key for settings in by_run for key in settings)
    rows = [(key, [settings.get(key) for settings in by_run]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _difference(
    values: Sequence[float | None], errors: Sequence[float | None], samples: Sequence[Measured | None], run: int, n: int
) -> tuple[float | None, float | None, bool]:
    value, reference = values[run], values[0]
    if value is None or reference is None:
        return None, None, False
    mine, first = samples[run], samples[0]
    if mine is not None and first is not None and mine.samples.shape == first.samples.shape == (1, n) and n > 1:
        paired = mine.unit * float(torch.std(mine.samples[0] - first.samples[0])) / math.sqrt(n)
        return value - reference, paired, True
    error, other = errors[run], errors[0]
    return value - reference, None if error is None or other is None else math.hypot(error, other), False


def _same_examples(compared: ComparedRuns) -> bool:
    return not any(compared.tests.alone) and all(index == compared.tests.index[0] for index in compared.tests.index)


def _samples(run: RunFiles) -> dict[tuple[Cell, ...], Measured]:
    """Values of single examples by what they are of; a method's settings stand behind its name and are left out."""
    return {
        (one.evaluation, one.metric, one.split, one.k, one.group, one.variant, one.method.partition(" [")[0]): one
        for one in read_outcomes(run.path / FILE)
    }


def _measured_key(about: Mapping[str, Cell]) -> tuple[Cell, ...]:
    cells = [about[name] or "" for name in ("evaluation", "metric", "split")]
    variant = without_control(str(about["variant"] or ""))
    return (*cells, about["k"], about["group"] or "", variant, about["method"] or "")


def _key(row: Mapping[str, Cell]) -> tuple[Cell, ...]:
    return tuple(row.get(name) for name in KEYS)


def _number(row: Mapping[str, Cell] | None, name: str) -> float | None:
    value = None if row is None else row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
