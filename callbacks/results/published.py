"""Figures that papers publish, to stand beside one's own: published/*.csv, one row per printed number.

A figure is shown where model and data of a run are the published ones: the same names, all rows of the data (no limit,
no selection, the published number of training rows), a default variant. Everything else is no match, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.columns import Cell, Row, settings_text
from twinlens.callbacks.results.results_csv import read_table

FOLDER = Path(__file__).parent / "published"
NEEDED = ("paper", "source", "evaluation", "metric", "value")
"""Columns that a file of figures cannot do without; an empty cell stands for any other that it lacks."""
WHAT = ("split", "method", "evaluation", "metric", "k", "group", "reference_group")
"""Cells in which a row of results.csv and a published figure have to agree, beside model and data."""
ANY = ("model", "k")
"""Columns whose empty cell in a published figure means that it holds for any."""


@dataclass(frozen=True)
class Figure:
    """One printed number.

    Attributes:
        paper, source: authors and year; table, figure or section.
        cells: model, data and what else a row of results.csv has to agree with; empty text for an empty cell.
        value: the number, or a bound as the text gives it (`>80`).
        note: what a reader should know about it.
    """

    paper: str
    source: str
    cells: Mapping[str, str]
    value: Cell
    note: str

    def fits(self, row: Row) -> bool:
        """Whether this is the published counterpart of a row of results.csv with default settings."""
        return not settings_text(row) and all(
            _text(row.get(name)) == wanted or (name in ANY and not wanted) for name, wanted in self.cells.items()
        )


@lru_cache
def figures() -> tuple[Figure, ...]:
    """All published figures.

    Raises:
        UserError: a file of the folder is damaged.
    """
    return tuple(figure for path in sorted(FOLDER.glob("*.csv")) for figure in read_figures(path))


def read_figures(path: Path) -> list[Figure]:
    """The figures of one file.

    Raises:
        UserError: it lacks a column of `NEEDED`, or a value is neither a number nor a bound.
    """
    found = []
    for number, cells in read_table(path, NEEDED, "mend the file"):
        try:
            value: Cell = cells["value"] if cells["value"][:1] in "<>" else float(cells["value"])
            float(cells["value"].lstrip("<>"))
        except ValueError:
            raise UserError(
                f"Column value in line {number} of {path} is {cells['value']!r}; expected a number, or a bound as >80: "
                "mend the file."
            ) from None
        named = {name: cells.get(name, "") for name in ("model", "data", *WHAT)}
        found.append(Figure(cells["paper"], cells["source"], named, value, cells.get("note", "")))
    return found


def train_rows(data: str) -> int | None:
    """Number of training rows that the published figures for these data rest on; None where none is published."""
    for figure in figures():
        if figure.cells["evaluation"] == "examples" and figure.cells["data"] == data.partition("/")[0]:
            return int(float(str(figure.value)))
    return None


def mismatch(config: Mapping[str, Any], n_train: int | None = None) -> str:
    """Why a run is not comparable with published figures even if its model and data are; empty if nothing is known.

    Args:
        config: the run's configuration.
        n_train: rows of its training split, None where it has none.
    """
    data = config.get("data") or {}
    for key in ("limit", "select"):
        cut = {split: value for split, value in (data.get(key) or {}).items() if value is not None}
        if cut:
            return f"data.{key}.{next(iter(cut))} is set"
    if data.get("split_validation"):
        return "data.split_validation is set"
    trainer = config.get("trainer") or {}
    for key in ("limit_train_batches", "limit_val_batches", "limit_predict_batches", "fast_dev_run"):
        if _cuts(trainer.get(key)):
            return f"trainer.{key} is set"
    wanted = train_rows(str(data.get("name", "")))
    if wanted is not None and n_train is not None and n_train != wanted:
        return f"{n_train} training rows, {wanted} in the paper"
    return ""


def with_published(rows: Iterable[Row], config: Mapping[str, Any], n_train: int | None = None) -> list[dict[str, Cell]]:
    """The rows of a run, each with `published`: a paper's figure where model, data and everything else match."""
    comparable = not mismatch(config, n_train)
    return [{**row, "published": published(row) if comparable else None} for row in rows]


def published(row: Row) -> Cell:
    """The published counterpart of a row, None where there is none."""
    return next((figure.value for figure in figures() if figure.fits(row)), None)


def explain_mismatch(rows: Sequence[Row], config: Mapping[str, Any], n_train: int | None = None) -> str:
    """A sentence for the reader of a run whose model and data are published ones, but which is not comparable."""
    reason = mismatch(config, n_train)
    if not reason or not any(published(row) is not None for row in rows):
        return ""
    return f"Published figures are not shown, because this run is not comparable with them: {reason}."


def _cuts(value: Any) -> bool:
    """Whether a limit of Lightning's Trainer leaves batches out: a share below 1.0, or any number of batches."""
    return value not in (None, False) and not (isinstance(value, float) and value == 1.0)


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
