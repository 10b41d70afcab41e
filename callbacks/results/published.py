"""Figures that papers publish, to stand beside one's own: published/*.csv, one row per printed number.

A figure is shown where the whole resolved configuration of a run is that of the paper's experiment (see `comparable`):
checkpoint, head, fit, data with all their rows, the method and the evaluation. Everything else is no match, and the
first difference is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.columns import SETTING, Cell, Row, settings_text
from twinlens.callbacks.results.comparable import FOLDERS, evaluation_mismatch, method_mismatch, mismatch
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


def with_published(rows: Iterable[Row], config: Mapping[str, Any], n_train: int | None = None) -> list[dict[str, Cell]]:
    """The rows of a run, each with `published`: a paper's figure where model, data and everything else match."""
    compared = Compared(config, n_train)
    return [{**row, "published": compared.published(row)} for row in rows]


def figure_of(row: Row) -> Figure | None:
    """The published counterpart of a row, wherever its run may come from; None where there is none."""
    return next((figure for figure in _figures_of(_text(row.get("evaluation"))) if figure.fits(row)), None)


@lru_cache
def _figures_of(evaluation: str) -> tuple[Figure, ...]:
    """Those of one evaluation; each row of each table is compared with all of them."""
    return tuple(figure for figure in figures() if figure.cells["evaluation"] == evaluation)


class Compared:
    """A run's configuration beside those of the papers.

    Args:
        config: the run's configuration.
        n_train: rows of its training split, None where it has none.
    """

    def __init__(self, config: Mapping[str, Any], n_train: int | None = None) -> None:
        self.config = config
        wanted = train_rows(str((config.get("data") or {}).get("name", "")))
        self.run = {paper: mismatch(config, n_train, wanted, paper) for paper in ("", *FOLDERS)}

    def published(self, row: Row) -> Cell:
        """The figure that stands beside a row of the run, None where none does."""
        figure = figure_of(row)
        return None if figure is None or any(self.reasons(figure, row)) else figure.value

    def reasons(self, figure: Figure, row: Row) -> tuple[str, str]:
        """Why a figure does not stand beside the row that it fits: of the run, of the row's method or evaluation."""
        own = method_mismatch(self.config, str(row.get("method") or "")) or evaluation_mismatch(self.config, row)
        if not own and row.get(SETTING):  # of a method that it reads
            own = f"{row['method']} rests on {row[SETTING]}"
        return self.run.get(figure.paper, self.run[""]), own


def explain_mismatch(rows: Sequence[Row], config: Mapping[str, Any], n_train: int | None = None) -> str:
    """What a reader is told of a run whose model and data are published ones, but where figures are left out."""
    compared = Compared(config, n_train)
    beside = [(figure, row) for row in rows if (figure := figure_of({**row, SETTING: None})) is not None]
    reasons = [compared.reasons(figure, row) for figure, row in beside]
    whole = next((of_run for of_run, _ in reasons if of_run), "")
    if whole:
        return f"Published figures are not shown, because this run is not comparable with them: {whole}."
    parts = list(dict.fromkeys(own for _, own in reasons if own))
    return f"Published figures are left out where {'; '.join(parts)}." if parts else ""


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
