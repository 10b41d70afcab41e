"""Findings of a run or a sweep in the form that every tracker takes: numbers, tables, figures, bundles of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinlens.callbacks.results.columns import Cell, Row
from twinlens.conf.checking.secrets import hide

MOST_ROWS = 10_000
"""Rows of a table in a tracker, which is what Weights & Biases shows of one."""


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        columns: its header.
        rows: its cells, as many in each row as there are columns.
        cut: what is left out, in words; empty: nothing.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    cut: str = ""


@dataclass(frozen=True)
class Bundle:
    """Files that belong together and have a name of their own: a model, its scores, a report.

    Attributes:
        name: of letters, digits, `-`, `_` and `.`.
        kind: `model`, `scores` or `report`.
        files: path in the bundle → file.
        large: further ones, which a tracker takes only where its settings allow so many bytes.
        facts: short texts about it; `made of` names the bundle that it comes from.
        made_here: False where the run only used it.
    """

    name: str
    kind: str
    files: Mapping[str, Path]
    large: Mapping[str, Path] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    made_here: bool = True


@dataclass(frozen=True)
class Findings:
    """All that a tracker is given.

    Attributes:
        folder: of the run or sweep, where the same stands in files.
        numbers: name → finite number.
        sheets: tables by name.
        figures: PNG files.
        bundles: in the order in which they were made.
        said: sentences on what is left out.
    """

    folder: Path
    numbers: Mapping[str, float]
    sheets: Mapping[str, Sheet]
    figures: Sequence[Path]
    bundles: Sequence[Bundle] = ()
    said: Sequence[str] = ()


def sheet_of(rows: Sequence[Row], columns: Sequence[str], file: str) -> Sheet:
    """Rows of a file as a table, without secrets.

    Args:
        rows: cells by column.
        columns: in their order.
        file: where all rows stand.
    """
    cut = f"{MOST_ROWS} of {len(rows)} rows; {file} has all" if len(rows) > MOST_ROWS else ""
    return Sheet(tuple(columns), [[shown(row.get(name)) for name in columns] for row in rows[:MOST_ROWS]], cut)


def shown(cell: Any) -> Any:
    """A cell without what is secret by its value."""
    return hide(cell) if isinstance(cell, str) else cell


def files_below(folder: Path, inside: str = "") -> dict[str, Path]:
    """Every file of a folder, those behind links into the store included: path in a bundle → file.

    Args:
        folder: need not be there.
        inside: first part of the paths in the bundle.
    """
    found = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            found[str(Path(inside) / path.relative_to(folder))] = path
    return found


def files_taken(bundle: Bundle, weights: bool, largest: int, option: str) -> dict[str, Path]:
    """The files of a bundle that a tracker takes; what it leaves out for its size is said in a line.

    Args:
        weights: whether large files of a model are wanted.
        largest: bytes of large files.
        option: of the group `logger`, for the line.
    """
    if bundle.kind == "model" and not weights:
        return dict(bundle.files)
    size = sum(path.stat().st_size for path in bundle.large.values())
    if size <= largest:
        return {**bundle.files, **bundle.large}
    print(
        f"tracking: {bundle.name} leaves out {len(bundle.large)} file(s) of {size} bytes, more than "
        f"logger.{option}.largest={largest}",
        flush=True,
    )
    return dict(bundle.files)
