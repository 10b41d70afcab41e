"""Answer of `twinlens.explain`: training instances and neurons of every text, shown or as tables."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, overload

from twinlens.runs import Run
from twinlens.score_tables import INSTANCE_COLUMNS, NEURON_COLUMNS, Neuron, Scores, joined

if TYPE_CHECKING:
    import pandas

WIDTH = 100
"""Characters of a text that are shown in a line."""
SHOWN = 5
"""Entries of each list that are shown."""


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


class Neurons(Sequence[Neuron]):
    """Neurons of all neuron methods, method by method and query by query, best first.

    Args:
        scores: of the methods.
    """

    def __init__(self, scores: Sequence[Scores]) -> None:
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
        columns = files.text_columns(files.split)
        return [joined(row, columns) for row in files.examples(files.split).dataset.remove_columns("input_ids")]

    def show(self, top: int = SHOWN) -> None:
        """Print the first entries of every list, query by query.

        Args:
            top: entries of each list.
        """
        print("\n".join(self._lines(top)))

    def _lines(self, top: int) -> Iterator[str]:
        lists: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for name, scores in self.run.scores.items():
            for row in scores.rows():
                if row["rank"] <= top:
                    lists.setdefault((row["query"], name), []).append(row)
        for number, text in enumerate(self.queries):
            yield f"query {number}: {shorten(text, WIDTH, placeholder=' …')}"
            for name, scores in self.run.scores.items():
                rows = lists.get((number, name), [])
                target = f" towards {rows[0]['target']}" if rows and rows[0]["target"] else ""
                yield f"  {name}{target} ({scores.settings.get('unit') or 'no unit'})"
                yield from (f"    {row['rank']:>3}. {row['score']:+.4g}  {_named(row)}" for row in rows)
        yield from (f"note: {note}" for note in self.notes)

    def _repr_html_(self) -> str:
        """In a notebook: the same as tables."""
        parts = [f"<h4>query {number}: {html.escape(text)}</h4>" for number, text in enumerate(self.queries)]
        for table in (self.instances.to_pandas(), self.neurons.to_pandas()):
            parts += [table[table["rank"] <= SHOWN].to_html(index=False)] if len(table) else []
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)

    def __repr__(self) -> str:
        methods = ", ".join(self.run.scores) or "no method"
        return f"Answer of {methods} for {len(self.queries)} texts; .show() prints it, .run has the files"


def _named(row: dict[str, Any]) -> str:
    if "text" in row:
        return f"[{row['index']}] {shorten(row['text'], WIDTH, placeholder=' …')}"
    return f"layer {row['layer']} {row['site']} {row['unit']}"


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(list(rows), columns=list(columns))
