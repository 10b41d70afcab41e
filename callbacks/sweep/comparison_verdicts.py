"""Verdict on runs side by side in sentences: what they predict, what their lists share, which numbers lie apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from twinlens.callbacks.report.sections import run_name
from twinlens.callbacks.results.columns import is_control
from twinlens.callbacks.results.formatting import format_number, format_value, metric_label
from twinlens.callbacks.sweep.compared_lists import Agreement, K, right
from twinlens.callbacks.sweep.compared_numbers import Number
from twinlens.callbacks.sweep.compared_runs import ComparedRuns

APART = 2.0
"""Standard errors by which two numbers lie apart."""
MOST_SETTINGS = 3
MOST_WARNINGS = 2
"""Of a run; the others stand in its report."""
_NOUNS = {"instance": "training instances", "neuron": "neurons"}


def comparison_verdicts(
    compared: ComparedRuns, same: np.ndarray, found: Sequence[Agreement], numbers: Sequence[Number],
    settings: Sequence[tuple[str, list[str | None]]],
) -> list[str]:  # fmt: skip
    """What the comparison found, the predictions first.

    Args:
        compared: the runs.
        same: which matched examples all runs predict the same.
        found: what their lists share.
        numbers: side by side.
        settings: those that differ.
    """
    return [
        _predictions(compared, same),
        *_lists(compared, found),
        *filter(None, [_apart(compared, numbers), _settings(settings)]),
    ]


def comparison_warnings(compared: ComparedRuns) -> list[str]:
    """What is not compared, then what each run says of itself."""
    said = []
    for letter, alone in zip(compared.letters, compared.tests.alone, strict=True):
        if alone:
            said.append(
                f"{_count(alone, f'{compared.split} example')} of {letter} {'has' if alone == 1 else 'have'} no match "
                "in another run, by row and text, and stand in no comparison of lists."
            )
    trained = compared.train.alone if compared.train is not None else ()
    for letter, alone in zip(compared.letters, trained, strict=False):
        if alone:
            said.append(
                f"{_count(alone, 'training instance')} of {letter} {'has' if alone == 1 else 'have'} no match in "
                "another run: lists that name them share less."
            )
    if len({run_name(run, "model") for run in compared.runs}) > 1:
        said.append("The runs have different models: their neurons are different things and are not compared.")
    names = [{scores.name for scores in run.scores} for run in compared.runs]
    for letter, own in zip(compared.letters, names, strict=True):
        only = sorted(name for name in own if not all(name in others for others in names))
        if only:
            said.append(f"Not every run has the methods {', '.join(only)} of {letter}.")
    for letter, run in zip(compared.letters, compared.runs, strict=True):
        said += [f"{letter}: {sentence}" for sentence in run.warnings[:MOST_WARNINGS]]
        left = len(run.warnings) - MOST_WARNINGS
        if left > 0:
            said.append(f"{letter}: {_count(left, 'more warning')} {'stands' if left == 1 else 'stand'} in its report.")
    return said


def statement(compared: ComparedRuns) -> str:
    """What stands side by side."""
    names = [
        f"{letter} is {run_name(run, 'model')}, seed {run.config.get('seed', '–')}"
        for letter, run in zip(compared.letters, compared.runs, strict=True)
    ]
    n = len(compared.tests.index[0])
    both = "both runs" if len(names) == 2 else "all runs"
    return f"{'; '.join(names)}. {_count(n, f'{compared.split} example')} of {both} are the same, by row and text."


def _predictions(compared: ComparedRuns, same: np.ndarray) -> str:
    counts = [right(run, index) for run, index in zip(compared.runs, compared.tests.index, strict=True)]
    told = [f"{letter} {count}" for letter, count in zip(compared.letters, counts, strict=True) if count is not None]
    correct = f" Right are {', '.join(told)}." if told else ""
    return f"The runs predict the same for {int(same.sum())} of {len(same)} examples.{correct}"


def _lists(compared: ComparedRuns, found: Sequence[Agreement]) -> Iterator[str]:
    """Per lens the method whose lists share most and the one whose share least, of every two runs."""
    for kind, noun in _NOUNS.items():
        shares = [
            (float(str(row["value"])), one, row)
            for one in found
            if one.kind == kind and K in one.shares and (row := one.row(K))["value"] is not None
        ]
        if not shares:
            continue
        most, least = max(shares, key=lambda item: item[0]), min(shares, key=lambda item: item[0])
        told = [_share(compared, one, row) for _, one, row in (most, least)]
        rest = f", the most, and {told[1]}, the least" if most[1] is not least[1] else ""
        yield f"Of the first {K} {noun}, their lists share {told[0]}{rest}."


def _share(compared: ComparedRuns, one: Agreement, row: dict[str, object]) -> str:
    value, error = (None if row[name] is None else float(str(row[name])) for name in ("value", "stderr"))
    pair = f" ({compared.letters[one.first]} and {compared.letters[one.second]})" if len(compared.runs) > 2 else ""
    return f"{format_value(value, error)}\N{NO-BREAK SPACE}% by {one.method}{pair}"


def _apart(compared: ComparedRuns, numbers: Sequence[Number]) -> str:
    """How many numbers lie apart, controls left out, and which does so most; empty where no difference has an error."""
    known = [
        (abs(value) / error, number, run, value, error)
        for number in numbers
        for run, (value, error, _) in enumerate(number.differences, start=1)
        if value is not None and error is not None and error > 0 and not is_control(number.row)
    ]
    if not known:
        return ""
    apart = [one for one in known if one[0] > APART]
    count = f"{len(apart)} of {len(known)} differences are larger than {format_number(APART)} standard errors"
    if not apart:
        return f"{count}."
    _, number, run, value, error = max(known, key=lambda one: one[0])
    of = f" of {number.about['method']}" if number.about["method"] else ""
    first, other = (format_number(number.values[place]) for place in (0, run))
    return (
        f"{count}; the clearest is {metric_label(number.row)}{of}: {first} in A, {other} in {compared.letters[run]} "
        f"(a difference of {format_value(value, error)})."
    )


def _settings(settings: Sequence[tuple[str, list[str | None]]]) -> str:
    if not settings:
        return "No setting differs that changes a number."
    told = [f"{key} ({', '.join(value or 'none' for value in values)})" for key, values in settings[:MOST_SETTINGS]]
    more = f" and {len(settings) - MOST_SETTINGS} more" if len(settings) > MOST_SETTINGS else ""
    return f"What differs: {', '.join(told)}{more}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
