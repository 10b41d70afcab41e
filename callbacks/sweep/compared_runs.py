"""Runs that are compared: what cannot be compared is refused, and the examples that all of them have are matched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase

import numpy as np

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.rebuild import run_folder
from twinlens.callbacks.report.sections import run_name
from twinlens.callbacks.results.run_files import RunFiles

MOST_RUNS = 8
"""Runs beside each other: more columns than these nobody reads; a sweep has a page of its own."""


@dataclass(frozen=True)
class Matched:
    """Rows of one split that all runs have: the same row of the source, or place in the file, with the same texts.

    Attributes:
        index: of each matched row in each run, [runs][rows].
        alone: rows of each run that another one lacks.
    """

    index: tuple[list[int], ...]
    alone: tuple[int, ...]


@dataclass(frozen=True)
class ComparedRuns:
    """Runs on the same data and split, by letters in the order they were given.

    Attributes:
        runs: their files.
    """

    runs: tuple[RunFiles, ...]

    @property
    def letters(self) -> str:
        """`A` for the first run, `B` for the second."""
        return ascii_uppercase[: len(self.runs)]

    @property
    def split(self) -> str:
        return self.runs[0].split

    @cached_property
    def tests(self) -> Matched:
        """Examples of the explained split that all runs have."""
        return _matched(self.runs, self.split)

    @cached_property
    def train(self) -> Matched | None:
        """Training instances that all runs have; None where a run keeps none."""
        there = all((run.path / "examples" / "train").is_dir() for run in self.runs)
        return _matched(self.runs, "train") if there else None

    def train_names(self, run: int) -> np.ndarray:
        """A run's train index → one number in all runs, −1 for an instance that another run lacks, [largest + 1]."""
        index = self.runs[run].examples("train").index
        names = np.full(int(index.max(initial=-1)) + 1, -1)
        if self.train is not None:
            names[self.train.index[run]] = np.arange(len(self.train.index[run]))
        return names


def compared_runs(folders: Sequence[str | Path]) -> ComparedRuns:
    """Open runs for a comparison.

    Args:
        folders: of two runs or more.

    Raises:
        UserError: too few or too many, one twice, no run's folder, other data or another split, a damaged file or one
            of a later format, or no example in common.
    """
    if not 2 <= len(folders) <= MOST_RUNS:
        raise UserError(
            f"report.compare names {len(folders)} {'run' if len(folders) == 1 else 'runs'}; expected 2 to {MOST_RUNS}: "
            "say report.compare=[RUN1,RUN2] with the folders of finished runs."
        )
    runs = [RunFiles(run_folder(folder, "give that one, or that of one job of a sweep")) for folder in folders]
    seen: dict[Path, Path] = {}
    for run in runs:
        if seen.setdefault(run.path.resolve(), run.path) is not run.path:
            raise UserError(
                f"report.compare names {run.path} twice; expected two runs: leave one out, or give the other run's "
                "folder."
            )
    _refuse_other(runs, "data", [run_name(run, "data") for run in runs])
    _refuse_other(runs, "split", [run.split for run in runs])
    for run in runs:
        _ = run.results  # damaged ones, or of a later format, are refused before anything is compared
    found = ComparedRuns(tuple(runs))
    if not found.tests.index[0]:
        raise UserError(
            f"{runs[0].path} and {runs[-1].path} have no {found.split} example in common, by row and text; expected "
            "runs on the same file: give runs whose data.path, data.limit and data.select leave common examples."
        )
    return found


def _refuse_other(runs: Sequence[RunFiles], what: str, values: Sequence[str]) -> None:
    other = next((place for place, value in enumerate(values) if value != values[0]), None)
    if other is not None:
        key = {"data": "data", "split": "attribute_split"}[what]
        raise UserError(
            f"{runs[0].path} has {what} {values[0]}, {runs[other].path} has {what} {values[other]}; expected runs of "
            f"the same {what}: give runs with the same {key}."
        )


def _matched(runs: Sequence[RunFiles], split: str) -> Matched:
    datasets = [run.examples(split).dataset for run in runs]
    row = "source_index" if all("source_index" in dataset.column_names for dataset in datasets) else "index"
    shown = [run.text_columns(split) for run in runs]
    columns = [name for name in shown[0] if all(name in names for names in shown)]
    places = []
    for dataset, run in zip(datasets, runs, strict=True):
        texts = [dataset[name][:] for name in columns]
        keys = zip(dataset[row][:], *texts, strict=True)
        places.append({_key(key): index for key, index in zip(keys, run.examples(split).index.tolist(), strict=True)})
    common = [key for key in places[0] if all(key in found for found in places[1:])]
    index = tuple([found[key] for key in common] for found in places)
    return Matched(index, tuple(len(dataset) - len(common) for dataset in datasets))


def _key(cells: Iterable[object]) -> tuple[object, ...]:
    return tuple(tuple(cell) if isinstance(cell, list) else cell for cell in cells)
