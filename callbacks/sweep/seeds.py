"""Comparison of methods over all seeds of a sweep: its jobs of one setting are fits of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from twinlens.attribution.evaluation.comparisons import Measured, compare_methods
from twinlens.callbacks.results.comparison_table import comparison_table
from twinlens.callbacks.results.outcomes import FILE, read_outcomes
from twinlens.callbacks.results.table import Table
from twinlens.callbacks.sweep.comparison import same_rows
from twinlens.callbacks.sweep.jobs import Job


def methods_over_seeds(jobs: Sequence[Job]) -> Table | None:
    """Pairs of methods of every setting of a sweep, paired example by example and seed by seed; None without any.

    Of jobs with one seed the last counts. Numbers that not every seed has on the same examples are left out.

    Args:
        jobs: finished ones.

    Raises:
        UserError: the outcomes of a job are damaged (named).
    """
    settings: dict[tuple[str, str, str], dict[object, Job]] = {}
    for job in jobs:
        settings.setdefault((job.model, job.data, job.swept), {})[job.seed] = job
    found = []
    for (model, data, swept), by_seed in settings.items():
        alike = [job for job in by_seed.values() if same_rows(next(iter(by_seed.values())), job, job.run.split)]
        name = f"{model} ({swept})" if swept else model
        found += [(name, data, one) for one in compare_methods(over_seeds(alike))]
    return comparison_table(found)


def over_seeds(jobs: Sequence[Job]) -> list[Measured]:
    """The numbers that all jobs have, each job one more fit of the model."""
    by_job = [{_about(one): one for one in read_outcomes(job.run.path / FILE)} for job in jobs]
    found = []
    for about, first in by_job[0].items() if by_job else ():
        samples = [of_job[about].samples for of_job in by_job if about in of_job]
        if len(samples) == len(by_job) and len({part.shape[1] for part in samples}) == 1:
            found.append(replace(first, samples=torch.cat(samples)))
    return found


def _about(one: Measured) -> tuple[object, ...]:
    return tuple(value for key, value in vars(one).items() if key != "samples")
