"""List of all warnings of a run, which docs/warnings.md shows as one table."""

from __future__ import annotations

from typing import NamedTuple

from twinlens.callbacks.results.model_warnings import MODEL_WARNINGS
from twinlens.callbacks.results.result_warnings import RESULT_WARNINGS
from twinlens.callbacks.results.run_warning import Facts, Stage
from twinlens.callbacks.results.score_warnings import SCORE_WARNINGS

WARNINGS = (*MODEL_WARNINGS, *SCORE_WARNINGS, *RESULT_WARNINGS)
"""In the order in which they are said."""


class Said(NamedTuple):
    """One warning of a run.

    Attributes:
        name: of its kind, as in docs/warnings.md.
        sentence: what is the matter and, behind a semicolon, what to do.
    """

    name: str
    sentence: str


def warnings_of(facts: Facts, stage: Stage) -> list[Said]:
    """What is to be said of a run when a stage has ended, each sentence once.

    Raises:
        UserError: a file of the run is missing or damaged (named).
    """
    return [
        Said(warning.name, _printable(line))
        for warning in WARNINGS
        if warning.stage == stage
        for line in dict.fromkeys(warning.lines(facts))
    ]


def _printable(text: str) -> str:
    """What a terminal could take for a command, in a label's name say, as an escape."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)
