"""Views of a run, by the words of the report's address: shown in a notebook, printed in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.cells import MAX_LISTED, Cell
from twinlens.callbacks.report.page import VIEWS
from twinlens.callbacks.report.worth import verdicts
from twinlens.callbacks.results.formatting import format_table
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.notebook_cells import as_text, cell_html, in_notebook, show
from twinlens.score_tables import Row, Scores, joined

if TYPE_CHECKING:
    import pandas

WIDTH = 72
"""Characters of a text that are shown in a line."""
SHOWN = 5
"""Entries of each list that are shown."""
MOST_QUERIES = 10
"""Explained texts whose lists stand in the tables that a notebook keeps beside its view."""
KINDS = ("test", "train", "neuron")
"""Words of an address that say of what a view is, see docs/report.md."""
LENSES = ("instance", "neuron", "unit")


@dataclass(frozen=True)
class View:
    """Part of a run that is looked at.

    Attributes:
        files: of the run.
        scores: lists by method, those that are printed.
        state: words of the address with their values, e.g. {"test": 17, "method": "ig"}; or {"view": name}.
        queries: explained examples whose lists are printed.
        top: entries of each list.
        figures: whether a notebook's view carries the library that draws figures.
        notes: sentences below all.
    """

    files: RunFiles
    scores: Mapping[str, Scores]
    state: Mapping[str, Any]
    queries: Sequence[int] = ()
    top: int = SHOWN
    figures: bool = False
    notes: Sequence[str] = ()

    @property
    def address(self) -> str:
        """As it stands behind the # of report.html."""
        return str(self.state["view"]) if "view" in self.state else urlencode(self.state)

    def __post_init__(self) -> None:
        if isinstance(self.top, bool) or not isinstance(self.top, int) or self.top < 1:
            raise UserError(f"top={self.top!r} entries of each list; expected a whole number from 1 on: write top=5.")

    def show(self) -> None:
        """Display it in a notebook, print it elsewhere."""
        text = as_text(self.tables(self.queries))
        if in_notebook():
            show(self.html(), text)
        else:
            print(text)

    def html(self) -> str:
        """For a notebook's cell."""
        return cell_html(self.files, self._cell(), self.tables(self.queries[:MOST_QUERIES]))

    def tables(self, queries: Sequence[int]) -> Iterator[tuple[str, pandas.DataFrame | None]]:
        """The view in short: titles, each with a table or None.

        Args:
            queries: explained examples whose lists are wanted.
        """
        if "train" in self.state:
            yield from self._instance(int(self.state["train"]))
        elif "neuron" in self.state:
            yield from self._unit(str(self.state["neuron"]))
        elif queries:
            yield from self._lists(queries)
            if len(queries) < len(self.queries):
                yield f"{len(self.queries) - len(queries)} more are explained", None
        else:
            yield "\n".join([*verdicts(self.files.results), format_table(self.files.results)]), None
        yield from ((f"note: {note}", None) for note in self.notes)

    def _cell(self) -> Cell:
        examples = self.queries
        if "train" in self.state:
            index = int(self.state["train"])
            named = [row for _, row in self._naming("instance", index)]
            first = {"instances": named[0]["method"]} if named and "instances" not in self.state else {}
            examples = list(dict.fromkeys(row["query"] for row in named))
            listed = max([MAX_LISTED, *(abs(row["rank"]) for row in named[:1])])
            return Cell(urlencode({**self.state, **first}), examples, (index,), self.figures, listed)
        if "neuron" in self.state:
            examples = [row["query"] for _, row in self._naming("neuron", str(self.state["neuron"]))]
        return Cell(self.address, list(dict.fromkeys(examples)), (), self.figures)

    def _lists(self, queries: Sequence[int]) -> Iterator[tuple[str, pandas.DataFrame | None]]:
        import pandas

        lists: dict[tuple[int, str], list[Row]] = {}
        for name, scores in self.scores.items():
            for row in scores.rows(queries=queries):
                if row["rank"] <= self.top:
                    lists.setdefault((row["query"], name), []).append(row)
        texts = texts_of(self.files, self.files.split, queries)
        for query in queries:
            yield f"query {query}: {_line(texts[query])}", None
            for name, scores in self.scores.items():
                rows = lists.get((query, name), [])
                target = f" towards {rows[0]['target']}" if rows and rows[0]["target"] else ""
                title = f"{name}{target} ({scores.settings.get('unit') or 'no unit'})"
                yield title, pandas.DataFrame([_shown(row) for row in rows]) if rows else None

    def _instance(self, index: int) -> Iterator[tuple[str, pandas.DataFrame | None]]:
        import pandas

        yield f"train {index}: {texts_of(self.files, 'train', [index])[index]}", None
        rows = [{name: row[name] for name in ("query", "target", "method", "rank", "score")}
                for _, row in self._naming("instance", index)]  # fmt: skip
        yield f"it stands in {_lists(rows)}" + _first(rows), pandas.DataFrame(rows[:MOST_QUERIES]) if rows else None

    def _unit(self, key: str) -> Iterator[tuple[str, pandas.DataFrame | None]]:
        import pandas

        named = list(self._naming("neuron", key))
        if not named:
            raise UserError(
                f"no list of the run names the neuron {key}; expected one that a list names, such as ffn.3.17 for unit "
                "17 of layer 3: take `key` of one of run.scores[method].neurons()."
            )
        rows = [{name: row[name] for name in ("query", "target", "method", "rank", "score")} for _, row in named]
        yield f"neuron {key} stands in {_lists(rows)}" + _first(rows), pandas.DataFrame(rows[:MOST_QUERIES])
        scores, found = named[0]
        passages = scores.passages.of(found["site"], found["layer"], found["unit"]) if found["method"] else []
        if passages:
            texts = [{"train": one.index, "activation": one.activation,
                      "text": _line(f"{one.before}[{one.marked}]{one.after}")} for one in passages]  # fmt: skip
            yield "training texts that activate it most", pandas.DataFrame(texts[: self.top])

    def _naming(self, lens: str, wanted: int | str) -> Iterator[tuple[Scores, Row]]:
        """Entries of all lists of a lens that name a train instance by its index, or a unit by its key; those that
        stand first come first, controls last."""
        named = [
            (scores, row) for scores in self.scores.values() if scores.lens == lens for row in scores.naming(wanted)
        ]
        return iter(sorted(named, key=lambda one: (one[0].control, abs(one[1]["rank"]))))


def view_of(
    files: RunFiles, scores: Mapping[str, Scores], view: str | None, state: Mapping[str, Any], top: int, figures: bool
) -> View:
    """A view as a caller asks for it.

    Args:
        view: name of one of the page's parts; None: what `state` says, else the overview.
        state: words of an address; those that are None are left out.

    Raises:
        UserError: two views at once, or one that the run does not have.
    """
    said = {name: value for name, value in state.items() if value is not None}
    asked = [name for name in KINDS if name in said]
    if len(asked) + (view is not None) > 1:
        both = " and ".join([*([f"the view {view}"] if view is not None else []), *asked])
        raise UserError(f"show was asked for {both}; expected one view at a time: call it once for each.")
    for word in ("method", "instances"):
        _ = scores[said[word]] if word in said else None  # says so where there is none
    if said.get("lens", LENSES[0]) not in LENSES:
        raise UserError(f"lens={said['lens']} is no lens; expected {' or '.join(LENSES)}: correct it.")
    if asked:
        queries: Sequence[int] = ()
        if "test" in said:
            queries = [_there(files, files.split, said["test"])]
            kept = {name: scores[name] for name in scores if said.get("method") in (None, name)}
            scores = {name: one for name, one in kept.items() if said.get("lens") in (None, one.lens)}
        elif "train" in said:
            _there(files, "train", said["train"])
        return View(files, scores, said, queries, top, figures)
    names = [name for name, _ in VIEWS]
    view = names[0] if view is None else view
    if view not in names:
        raise UserError(
            f"the page has no view {view}; expected one of {', '.join(names)}, or test=, train= or neuron=: choose one."
        )
    queries = [] if view == names[0] else files.examples(files.split).index[:MOST_QUERIES].tolist()
    return View(files, scores, {"view": view}, queries, top, figures)


def texts_of(files: RunFiles, split: str, indices: Sequence[int]) -> dict[int, str]:
    """Texts of examples as the model reads them, by index."""
    columns = files.text_columns(split)
    rows = files.examples(split).rows(indices, without=("input_ids", "prob"))
    return {index: joined(row, columns) for index, row in rows.items()}


def _there(files: RunFiles, split: str, index: Any) -> int:
    """The index, if the split has it."""
    known = files.examples(split).index
    if isinstance(index, bool) or not hasattr(index, "__index__") or int(index) not in known:
        raise UserError(
            f"the run has no {split} example {index}; expected one of its {len(known)}, from {known.min()} to "
            f"{known.max()}: choose one."
        )
    return int(index)


def _shown(row: Row) -> dict[str, Any]:
    """An entry of a list for a reader."""
    if "text" in row:
        return {"rank": row["rank"], "score": row["score"], "train": row["index"], "text": _line(row["text"])}
    return {name: row[name] for name in ("rank", "score", "layer", "site", "unit")}


def _lists(rows: Sequence[Any]) -> str:
    return "1 list" if len(rows) == 1 else f"{len(rows)} lists"


def _first(rows: Sequence[Any]) -> str:
    return f", of which the first {MOST_QUERIES} are" if len(rows) > MOST_QUERIES else ""


def _line(text: str) -> str:
    return shorten(text, WIDTH, placeholder=" …")
