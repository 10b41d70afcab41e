"""Rows of results that a job of a sweep need not print: an earlier one has.

Jobs of a sweep share fits, controls and whole evaluations, so that most of a later job's table stands above already.
What was printed is noted in the sweep's folder while the sweep goes on, for jobs may run in processes of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from twinlens.callbacks.results.columns import Cell

SWEEP_NOTES = ".outcomes"
"""Folder of a sweep that is there while it goes on."""
PRINTED = "printed"
"""File of the digests of rows that jobs have printed, one a line."""


def new_rows(rows: Sequence[dict[str, Cell]], run: Path) -> list[dict[str, Cell]]:
    """The rows that no earlier job of the run's sweep has printed, which are noted; all where it is of no sweep.

    Args:
        rows: of the run, every cell of which counts.
        run: its folder.
    """
    notes = run.parent / SWEEP_NOTES
    if not notes.is_dir():
        return list(rows)
    file = notes / PRINTED
    known = set(file.read_text(encoding="ascii").split()) if file.is_file() else set()
    digests = [_digest(row) for row in rows]
    new = [row for row, digest in zip(rows, digests, strict=True) if digest not in known]
    with file.open("a", encoding="ascii") as opened:
        opened.write("".join(f"{digest}\n" for digest in dict.fromkeys(digests) if digest not in known))
    return new


def _digest(row: dict[str, Cell]) -> str:
    content = json.dumps({name: cell for name, cell in row.items() if cell is not None}, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:32]
