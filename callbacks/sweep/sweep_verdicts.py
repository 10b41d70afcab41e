"""Verdict of a sweep in sentences: what methods find, how right the models are, what failed and what runs warn of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.sections import HEADLINE
from twinlens.callbacks.report.worth import verdicts
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.formatting import format_value
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.sweep.jobs import Job
from twinlens.callbacks.sweep.settings import Setting, setting_of_row

MOST_SETTINGS = 4
"""Settings whose verdicts are told one by one; of more, the accuracies alone, from the lowest to the highest."""
MOST_WARNINGS = 8
NUMBER = re.compile(r"-?\d[\d.,e-]*")


def sweep_verdicts(summary: Sequence[dict[str, Cell]]) -> list[str]:
    """What the sweep found, a sentence for each setting, lens and test, then the models' accuracies.

    Args:
        summary: rows of summary.csv; means over several seeds are told with their standard errors.
    """
    settings = list(dict.fromkeys(map(setting_of_row, summary)))
    rows = {setting: [row for row in summary if setting_of_row(row) == setting] for setting in settings}
    said = []
    if len(settings) <= MOST_SETTINGS:
        for setting, mine in rows.items():
            lead = f"{setting.told(settings)}: " if len(settings) > 1 else ""
            said += [f"{lead}{sentence}" for sentence in verdicts(mine)]
    last = " ".join(filter(None, [_accuracies(rows, settings), _errors(summary)]))
    return [*said, *filter(None, [last])]


def sweep_warnings(outcomes: Sequence[Mapping[str, Any]], jobs: Sequence[Job], faults: Mapping[int, str]) -> list[str]:
    """What is missing from the page and why, job by job, then what the runs say of themselves.

    Args:
        outcomes: rows of sweep.csv.
        jobs: those with results.
        faults: what is wrong with the files of others, by number.
    """
    read = {job.number for job in jobs}
    said = []
    for row in outcomes:
        number = int(str(row["job"]))
        if row["status"] != "done":
            said.append(f"Job {number} is missing, {row['status']}: {str(row['message']).rstrip('.')}.")
        elif number in faults:
            said.append(f"Job {number} is missing, its files cannot be read: {faults[number].rstrip('.')}.")
        elif number not in read:
            said.append(f"Job {number} is missing: its folder {row['folder']} has no results.csv.")
    ranked = warnings_of_jobs({job.number: job.run for job in jobs})
    said += [f"{_jobs(numbers)}: {sentence}" for sentence, numbers in ranked[:MOST_WARNINGS]]
    if len(ranked) > MOST_WARNINGS:
        said.append(f"{len(ranked) - MOST_WARNINGS} more warnings stand in the reports of single jobs.")
    return said


def warnings_of_jobs(runs: Mapping[int, RunFiles]) -> list[tuple[str, list[int]]]:
    """Each sentence that jobs say of themselves, and the numbers of these, those of the most jobs first.

    Args:
        runs: files of each job, by number.
    """
    told: dict[str, list[int]] = {}
    for number, run in runs.items():
        for sentence in _warnings(run):
            told.setdefault(sentence, []).append(number)
    return sorted(told.items(), key=lambda item: -len(item[1]))


def warning_lines(folder: Path, outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same as lines of a terminal, for example `warning (2 of 3 jobs: 0, 2): …`; all of them, of failed jobs too.
    Sentences that differ in their numbers alone are one line.

    Args:
        folder: of the sweep.
        outcomes: rows of sweep.csv.
    """
    runs = {int(str(row["job"])): RunFiles(folder / str(row["folder"])) for row in outcomes}
    kinds: dict[str, list[tuple[str, list[int]]]] = {}
    for sentence, numbers in warnings_of_jobs(runs):
        kinds.setdefault(NUMBER.sub("", sentence), []).append((sentence, numbers))
    lines = []
    for told in kinds.values():
        jobs = sorted({number for _, numbers in told for number in numbers})
        own = "" if len(told) == 1 else "; each with its own numbers, here of the first"
        lines.append(f"warning ({len(jobs)} of {len(runs)} jobs: {', '.join(map(str, jobs))}{own}): {told[0][0]}")
    return lines


def _errors(summary: Sequence[Mapping[str, Cell]]) -> str:
    """Over how many seeds the errors are; empty where every setting has one."""
    seeds = sorted({int(str(row["seeds"])) for row in summary if row["seeds"] != 1})
    if not seeds:
        return ""
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"Behind ± stands the standard error over {count} seeds."


def _accuracies(rows: Mapping[Setting, Sequence[Mapping[str, Cell]]], settings: Sequence[Setting]) -> str:
    """How right the models are on the split that results name first, all settings or the lowest and the highest."""
    found = []
    for setting, mine in rows.items():
        own = [row for row in mine if not row["method"] and not row["group"] and row["metric"] == HEADLINE[0]]
        for row in own[:1]:
            found.append((float(str(row["value"])), setting, row))
    if not found:
        return ""
    shown = found if len(found) <= MOST_SETTINGS else [min(found, key=_first), max(found, key=_first)]
    told = [
        f"{format_value(row['value'], row['stderr'])}" + (f" ({setting.told(settings)})" if len(settings) > 1 else "")
        for _, setting, row in shown
    ]
    between = ", " if shown is found else " to "
    lead = "" if shown is found else f"of {len(found)} settings "
    split = str(shown[0][2]["split"] or "")
    return f"The model: {f'{split} ' if split else ''}accuracy {lead}{between.join(told)}."


def _first(found: tuple[float, Setting, Mapping[str, Cell]]) -> float:
    return found[0]


def _warnings(run: RunFiles) -> list[str]:
    try:
        return run.warnings
    except UserError as error:
        return [str(error)]


def _jobs(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:6])) + (" …" if len(numbers) > 6 else "")
    return f"Job {shown}" if len(numbers) == 1 else f"Jobs {shown}"
