"""Rows as a dataset's own reader gives them, before any of them is chosen or tokenised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class SourceRows:
    """One split as read from its source, before limit and selection.

    Attributes:
        source_index: row in the source file, [rows].
        columns: text and plant columns by name, each [rows]; a plant column that only some splits have stands only in
            these.
        labels: class numbers, -1 for unlabelled, [rows]; folded ones in a split with a `Fold`; for multiple choice the
            number of the right choice.
        choices: the candidate answers of each question, [rows][choices]; None: plain classification.
        left_out: rows of the source file that were not taken because they have no gold label; reported.
    """

    source_index: list[int]
    columns: dict[str, list[Any]]
    labels: list[int] = field(default_factory=list)
    choices: list[list[str]] | None = None
    left_out: list[int] = field(default_factory=list)
