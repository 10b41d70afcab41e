"""Finished run as tables: scores of both lenses, results, and what differs from another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.neuron_passages import Passages
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet
from twinlens.comparisons import Comparison
from twinlens.score_tables import Scores
from twinlens.views import SHOWN, view_of

if TYPE_CHECKING:
    import pandas


class Run:
    """A run's folder, read as it is asked for; nothing in it is changed.

    Args:
        path: the folder, as the last line of a command names it.
        held: what has to live as long as the run is read, as a temporary folder does.

    Raises:
        UserError: no folder, or none of a run.
    """

    def __init__(self, path: str | Path, held: object = None) -> None:
        self.held = held
        if not isinstance(path, str | PathLike):
            raise UserError(
                f"{path!r:.60} is no path, so that it is no run; expected the folder that a run has left: write "
                "twinlens.open('outputs/runs/2026-01-31_…')."
            )
        self.path = Path(path).expanduser().absolute()  # it is read when it is asked for, wherever the caller is then
        if not (self.path / "config.yaml").is_file():
            what = "has no config.yaml" if self.path.is_dir() else "is no folder"
            jobs = sorted(self.path.glob("*/config.yaml")) if self.path.is_dir() else []
            if jobs:
                raise UserError(
                    f"{self.path} holds {len(jobs)} run(s) and is none itself, as a sweep's folder is; expected one of "
                    f"them: give e.g. {jobs[0].parent}."
                )
            raise UserError(
                f"{self.path} {what}, so that it is no run; expected the folder that a run has left: give the last "
                "line that the command printed, e.g. outputs/runs/2026-01-31_…"
            )
        self.files = RunFiles(self.path)

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings of the run."""
        return self.files.config

    @property
    def warnings(self) -> list[str]:
        """What the run says about itself, a sentence each."""
        return self.files.warnings

    @property
    def metrics(self) -> Mapping[str, float]:
        """Numbers by name, seconds per stage among them."""
        return self.files.metrics

    @cached_property
    def scores(self) -> ScoresByMethod:
        """Lists by the name of the method, e.g. `run.scores["ig"]`; those of a method that draws are of its first
        seed."""
        return ScoresByMethod(self.files, self.held)

    def results(self) -> pandas.DataFrame:
        """results.csv, a row for each number; empty where nothing was evaluated."""
        import pandas

        there = (self.path / "results.csv").is_file()
        return pandas.DataFrame(self.files.results if there else [])

    def show(
        self,
        view: str | None = None,
        *,
        test: int | None = None,
        train: int | None = None,
        neuron: str | None = None,
        method: str | None = None,
        instances: str | None = None,
        lens: str | None = None,
        top: int = SHOWN,
        figures: bool = False,
    ) -> None:
        """Show a part of the report: in a notebook as the report does, elsewhere as a table. The words are those of
        its address (docs/report.md).

        Args:
            view: `overview`, `prompts`, `examples`, `instances`, `units` or `settings`; None: what the others say,
                else the overview.
            test: index of an explained example.
            train: index of a train instance.
            neuron: a unit by its key, e.g. `ffn.3.17`.
            method: whose neurons come first.
            instances: whose train instances come first.
            lens: `instance` or `neuron`, where only one is wanted.
            top: entries of each list that are printed.
            figures: whether a notebook's view draws figures, with 2 MB more; else it has their numbers.

        Raises:
            UserError: what is asked for is not in the run, or two things are asked for.

        Example:
            >>> run.show(test=17, method="ig")  # doctest: +SKIP
        """
        state = {"test": test, "train": train, "neuron": neuron, "method": method, "instances": instances, "lens": lens}
        view_of(self.files, self.scores, view, state, top, figures).show()

    def _repr_html_(self) -> str:
        """In a notebook: the report, from its overview on."""
        return view_of(self.files, self.scores, None, {}, SHOWN, False).html()

    def compare(self, other: Any) -> Comparison:
        """What differs between this run and another one.

        Args:
            other: a run, an answer, or a run's folder.

        Raises:
            UserError: no run, or one that explains no text in common.
        """
        other = getattr(other, "run", other)
        return Comparison(self, other if isinstance(other, Run) else Run(other))

    def figures(self, folder: str | Path, kind: Literal["pdf", "svg", "png"] = "pdf") -> list[Path]:
        """Draw every figure of the run into a folder, by default as PDF, as papers take them.

        Returns:
            Paths of the figures.

        Raises:
            UserError: another kind of file; a file of the run is missing or damaged (named).
        """
        from twinlens.callbacks.figures.style import KINDS
        from twinlens.callbacks.figures.write import write_figures

        if kind not in KINDS:
            raise UserError(f"kind={kind!r} of figures; expected one of {', '.join(KINDS)}: write kind='pdf'.")
        return write_figures(self.path, Path(folder), kind)

    def __repr__(self) -> str:
        try:
            said = ", ".join(self.scores) or "no scores"
        except UserError as error:  # a damaged run has a name as well
            said = str(error)
        return f"Run({str(self.path)!r}): {said}"


class ScoresByMethod(Mapping[str, Scores]):
    """Scores of a run by method, real methods before controls.

    Args:
        files: of the run.
        held: what has to live as long as they are read.
    """

    def __init__(self, files: RunFiles, held: object = None) -> None:
        self._held = held
        self._passages = Passages(files.path)
        self._sets: dict[str, ScoreSet] = {}
        if (files.path / "scores").is_dir():
            self._sets = {found.name: found for found in files.scores}
        self._files = files

    def __getitem__(self, name: str) -> Scores:
        if name not in self._sets:
            raise UserError(
                f"the run {self._files.path} has no scores of {name}; expected one of "
                f"{', '.join(self._sets) or 'none, since no method ran'}: choose one, or add it with method=[{name}]."
            )
        return Scores(self._files, self._sets[name], self._passages, self._held, self._draw)

    def get(self, name: Any, default: Any = None) -> Any:
        """Scores of a method, or `default` where it has none."""
        return self[name] if name in self._sets else default

    def _draw(self, state: Mapping[str, Any]) -> str:
        """A notebook's view."""
        return view_of(self._files, self, None, state, SHOWN, False).html()

    def __contains__(self, name: object) -> bool:
        return name in self._sets

    def __iter__(self) -> Iterator[str]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)


def open_run(path: str | Path) -> Run:
    """Open a finished run, for example `twinlens.open("outputs/runs/…").scores["ig"].to_pandas()`.

    Args:
        path: its folder.

    Raises:
        UserError: no run lies there.
    """
    return Run(path)
