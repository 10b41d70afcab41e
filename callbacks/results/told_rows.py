"""Rows of results and sentences that a job of a sweep need not print: an earlier one has.

Jobs of a sweep share fits, controls and whole evaluations, so that most of a later job's table stands above already,
and so do the warnings about these.
What was printed is noted in the sweep's folder while the sweep goes on, for jobs may run in processes of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from twinlens.callbacks.results.columns import Cell

SWEEP_NOTES = ".outcomes"
"""Folder of a sweep that is there while it goes on."""
PRINTED = "printed"
"""File of the digests of what jobs have printed, one a line."""
OWN_OUTPUT = "SUBMITIT_EXECUTOR"
"""Set where submitit runs a job, whose output goes to a file of its own."""


def new_rows(rows: Sequence[dict[str, Cell]], run: Path) -> list[dict[str, Cell]]:
    """The rows that no earlier job of the run's sweep has printed, which are noted; all where it is of no sweep.

    Args:
        rows: of the run, every cell of which counts.
        run: its folder.
    """
    contents = [{name: cell for name, cell in row.items() if cell is not None} for row in rows]
    told = [json.dumps(content, sort_keys=True, default=str) for content in contents]
    return [row for row, new in zip(rows, _noted(told, run), strict=True) if new]


def new_sentences(sentences: Sequence[str], run: Path) -> list[str]:
    """The sentences that no earlier job of the run's sweep has said, which are noted; all where it is of no sweep, and
    where the job's output is a file of its own, as submitit's is.

    Args:
        sentences: of the run.
        run: its folder.
    """
    if OWN_OUTPUT in os.environ:
        return list(sentences)
    return [sentence for sentence, new in zip(sentences, _noted(sentences, run), strict=True) if new]


def _noted(contents: Sequence[str], run: Path) -> list[bool]:
    """Whether each is new to the run's sweep; those that are new are noted."""
    notes = run.parent / SWEEP_NOTES
    if not notes.is_dir():
        return [True] * len(contents)
    file = notes / PRINTED
    known = set(file.read_text(encoding="ascii").split()) if file.is_file() else set()
    digests = [hashlib.sha256(content.encode()).hexdigest()[:32] for content in contents]
    with file.open("a", encoding="ascii") as opened:
        opened.write("".join(f"{digest}\n" for digest in dict.fromkeys(digests) if digest not in known))
    return [digest not in known for digest in digests]
