"""Answer of `twinlens.explain`: training instances and neurons of every text, shown or as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from twinlens.runs import Run
from twinlens.score_tables import INSTANCE_COLUMNS, NEURON_COLUMNS, Neuron, Scores
from twinlens.views import SHOWN, View, texts_of

if TYPE_CHECKING:
    import pandas


class Instances:
    """Training instances of all instance methods.

    Args:
        scores: of the methods.
    """

    def __init__(self, scores: Sequence[Scores]) -> None:
        self.scores = scores

    def to_pandas(self, bottom: bool = False) -> pandas.DataFrame:
        """A row for each entry: query, target, method, rank, index, text, score.

        Args:
            bottom: the lowest ones as well, with the ranks −1 (the lowest), −2 and so on.
        """
        return _frame([row for each in self.scores for row in each.rows(bottom)], INSTANCE_COLUMNS)

    def __len__(self) -> int:
        return sum(1 for each in self.scores for _ in each.rows())

    def _repr_html_(self) -> str | None:
        """In a notebook: the lists of the first query, as the report shows them."""
        return self.scores[0]._repr_html_() if self.scores else None


class Neurons(Sequence[Neuron]):
    """Neurons of all neuron methods, method by method and query by query, best first.

    Args:
        scores: of the methods.
    """

    def __init__(self, scores: Sequence[Scores]) -> None:
        self._scores = scores
        self._found = [neuron for each in scores for neuron in each.neurons()]

    @overload
    def __getitem__(self, place: int) -> Neuron: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Neuron]: ...

    def __getitem__(self, place: int | slice) -> Neuron | Sequence[Neuron]:
        return self._found[place]

    def __iter__(self) -> Iterator[Neuron]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def _repr_html_(self) -> str | None:
        """In a notebook: the lists of the first query, as the report shows them."""
        return self._scores[0]._repr_html_() if self._scores else None

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each neuron: query, target, method, rank, layer, site, unit, position, score."""
        return _frame([{name: getattr(each, name) for name in NEURON_COLUMNS} for each in self._found], NEURON_COLUMNS)


class Answer:
    """What `twinlens.explain` found.

    Args:
        run: what it has left; `run.path` is the folder.
        notes: what was done that the caller may not expect, a sentence each.
        log: what a command would have printed.
    """

    def __init__(self, run: Run, notes: Sequence[str], log: str) -> None:
        self.run = run
        self.notes = [*notes, *run.warnings]
        self.log = log

    @property
    def path(self) -> Path:
        """The run's folder; report.html in it opens in a browser."""
        return self.run.path

    @cached_property
    def instances(self) -> Instances:
        """What the instance methods found in `train`."""
        return Instances([found for found in self.run.scores.values() if found.lens == "instance"])

    @cached_property
    def neurons(self) -> Neurons:
        """What the neuron methods found, e.g. `answer.neurons[0].texts()`."""
        return Neurons([found for found in self.run.scores.values() if found.lens == "neuron"])

    @property
    def queries(self) -> list[str]:
        """The explained texts, as the model reads them; what it went on with by itself is part of them."""
        files = self.run.files
        return list(texts_of(files, files.split, files.examples(files.split).index.tolist()).values())

    def show(self, top: int = SHOWN, figures: bool = False) -> None:
        """Show the first entries of every list, query by query: in a notebook as the report does, elsewhere as tables.

        Single examples, instances and neurons are shown by `answer.run.show(test=0)` and so on.

        Args:
            top: entries of each list that are printed.
            figures: whether a notebook's view draws figures, with 2 MB more; else it has their numbers.
        """
        self._view(top, figures).show()

    def _view(self, top: int = SHOWN, figures: bool = False) -> View:
        files = self.run.files
        queries = files.examples(files.split).index.tolist()
        state = {"test": queries[0]}
        return View(files, self.run.scores, state, queries, top, figures, self.notes)

    def _repr_html_(self) -> str:
        """In a notebook: the first text with its lists; all others are a click away."""
        return self._view().html()

    def __repr__(self) -> str:
        methods = ", ".join(self.run.scores) or "no method"
        return f"Answer of {methods} for {len(self.queries)} texts; .show() prints it, .run has the files"


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(list(rows), columns=list(columns))
