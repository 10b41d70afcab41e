"""A whole command line, one run or a sweep, as one exit code."""

from __future__ import annotations

from collections.abc import Callable

from twinlens.callbacks.run.quiet_libraries import quiet_libraries
from twinlens.callbacks.run.run_outcome import OUTCOMES, exit_code, outcome_of
from twinlens.callbacks.sweep.job_outcomes import outcomes_elsewhere, telling_of_lost_jobs


def exit_code_of(work: Callable[[], None]) -> int:
    """Run a command line and say what went wrong in it; the exit code, see `exit_code`.

    Args:
        work: checks the command line and runs its jobs, here or in other processes.
    """
    quiet_libraries()
    checked = outcome_of(telling_of_lost_jobs()(work))
    return exit_code([*OUTCOMES, *outcomes_elsewhere(), checked])
