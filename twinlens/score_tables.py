"""Scores of a method as tables: training instances or neurons of every query, best first."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from twinlens.attribution.neuron.ranking import SITES
from twinlens.callbacks.report.listed_units import address_text, addresses
from twinlens.callbacks.report.method_lists import target_name
from twinlens.callbacks.report.neuron_passages import Passage, Passages
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet

if TYPE_CHECKING:
    import pandas

INSTANCE_COLUMNS = ("query", "target", "method", "rank", "index", "text", "score")
OF_UNITS = ("unit_kind", "site", "layer", "unit")
NEURON_COLUMNS = ("query", "target", "method", "rank", "layer", "site", "unit", "position", "score")
UNIT_COLUMNS = (*INSTANCE_COLUMNS, *OF_UNITS)
BATCH = 256
"""Explained examples that are read at a time."""
Row = dict[str, Any]
Draw = Callable[[Mapping[str, Any]], str]
"""Makes a notebook's view of what the words of an address name."""


@dataclass(frozen=True)
class Neuron:
    """A unit in a list.

    Attributes:
        query: number of the explained text, from 0 on.
        target: what the score is towards.
        method: name of the method.
        rank: place in the list, from 1 on.
        layer: number of the block, from 0 on.
        site: `ffn` or `attn`.
        unit: number within layer and site; of a head or layer −1 where the method lists whole ones.
        position: token that it is scored at, −1: the answer's, or all.
        score: sign and unit as the method says (`run.scores[method].settings`).
        key: its name in addresses, e.g. `ffn.3.17`: `run.show(neuron=key)`.
    """

    query: int
    target: str
    method: str
    rank: int
    layer: int
    site: str
    unit: int
    position: int
    score: float
    key: str
    _passages: Passages = field(repr=False, compare=False)
    _draw: Draw | None = field(repr=False, compare=False, default=None)

    def texts(self) -> list[Passage]:
        """Training texts that activate it most, strongest first: index, activation, words before, the marked token and
        words after it; empty where the run searched none (`neuron_texts=0`, or no train texts)."""
        return self._passages.of(self.site, self.layer, self.unit)

    def _repr_html_(self) -> str | None:
        """In a notebook: the neuron as the report shows it."""
        return None if self._draw is None else self._draw({"neuron": self.key})


class Scores:
    """Lists of one method.

    Args:
        files: of the run.
        found: of the method.
        passages: of the run's neurons.
        held: what has to live as long as they are read.
        draw: makes the notebook's view; None: it shows none.

    Attributes:
        name: of the method.
        lens: `instance`, `neuron`, or `unit`: training instances of single units of a prediction.
        settings: method.yaml: resolved settings, sign and unit.
        passages: texts that activate its units.
        control: whether it is a control, which others are compared with.
    """

    def __init__(
        self, files: RunFiles, found: ScoreSet, passages: Passages, held: object = None, draw: Draw | None = None
    ) -> None:
        self._held = held
        self._draw = draw
        self.name = found.name
        self.lens: Literal["instance", "neuron", "unit"] = found.kind
        self.settings = found.settings
        self._files = files
        self._found = found
        self.passages = passages
        self.control = found.control

    def to_pandas(self, bottom: bool = False) -> pandas.DataFrame:
        """A row for each entry, best first: query, target, method, rank and score; of instances the row's `index` and
        `text`, of neurons `layer`, `site`, `unit` and `position`, of units' instances both.

        Args:
            bottom: the lowest training instances as well, with the ranks −1 (the lowest), −2 and so on.
        """
        import pandas

        columns = {"instance": INSTANCE_COLUMNS, "neuron": NEURON_COLUMNS, "unit": UNIT_COLUMNS}[self.lens]
        return pandas.DataFrame(list(self.rows(bottom)), columns=list(columns))

    def rows(self, bottom: bool = False, queries: Container[int] | None = None) -> Iterator[Row]:
        """The same, row by row.

        Args:
            bottom: see `to_pandas`.
            queries: those whose rows are wanted; None: all.
        """
        if self.lens == "neuron":
            return map(_row_of, self.neurons(queries))
        columns = self._files.text_columns("train")
        return self._with_texts(columns, self._instances(bottom, self._rows(_of_queries(queries))))

    def naming(self, wanted: int | str) -> Iterator[Row]:
        """Entries that name one train instance, or one unit: query, target, method, rank and score. Of a list that has
        the instance at both ends it is the end where it comes sooner.

        Args:
            wanted: index of the instance, of an instance method; `key` of the unit, of a neuron method.
        """
        if self.lens == "neuron":
            for row, target in self._rows(lambda row: wanted in self._keys(row)):
                yield from (_row_of(one) for one in self._units(row, target) if one.key == wanted)
        else:
            for found in self._rows(lambda row: wanted in row["top_index"] or wanted in row["bottom_index"]):
                ends = [row for row in self._instances(True, iter([found])) if row["index"] == wanted]
                yield min(ends, key=lambda row: abs(row["rank"]))

    def neurons(self, queries: Container[int] | None = None) -> Iterator[Neuron]:
        """Units of a neuron method, query by query, best first; none of an instance method.

        Args:
            queries: those whose units are wanted; None: all.
        """
        if self.lens != "neuron":
            return
        for row, target in self._rows(_of_queries(queries)):
            yield from self._units(row, target)

    def named(self, first: int) -> dict[int, list[Any]]:
        """What the first places of every query's list name, in whatever run: texts of training instances, (layer, site,
        unit), or both."""
        found: dict[int, list[Any]] = {}
        for row in self.rows():
            if row["rank"] <= first:
                named = tuple(row[name] for name in ("layer", "site", "unit", "text") if name in row)
                found.setdefault(row["query"], []).append(named)
        return found

    def _rows(self, wanted: Callable[[Row], bool]) -> Iterator[tuple[Row, str]]:
        """Stored rows that are wanted, with what their scores are towards."""
        examples = self._files.examples(self._files.split)
        stored = filter(wanted, self._found.rows.dataset)
        while rows := list(islice(stored, BATCH)):
            there = examples.rows([int(row["index"]) for row in rows], without=("input_ids", "prob"))
            for row in rows:
                yield row, target_name(self._files, self._found, there[int(row["index"])], row)

    def _keys(self, row: Row) -> list[str]:
        """Names of a stored row's units in addresses."""
        return [address_text(address) for address in addresses(row, self.settings)] if row["layer"] else []

    def _units(self, row: Row, target: str) -> Iterator[Neuron]:
        """Units of a stored row."""
        keys = self._keys(row)
        sites = row.get("site") or [SITES[0]] * len(keys)
        places = row.get("position") or [-1] * len(keys)
        entries = zip(row["layer"] or [], sites, row["unit"] or [], places, row["score"] or [], keys, strict=True)
        for rank, (layer, site, unit, position, score, key) in enumerate(entries, 1):
            where = int(layer), str(site), int(unit), int(position), float(score), key
            yield Neuron(int(row["index"]), target, self.name, rank, *where, self.passages, self._draw)

    def _instances(self, bottom: bool, rows: Iterator[tuple[Row, str]]) -> Iterator[Row]:
        """Train instances of stored rows, without their texts."""
        for row, target in rows:
            of_unit = {name: row[name] for name in OF_UNITS if self.lens == "unit"}
            for end, sign in [("top", 1)] + ([("bottom", -1)] if bottom else []):
                entries = zip(row[f"{end}_index"], row[f"{end}_score"], strict=True)
                for place, (index, score) in enumerate(entries, 1):
                    if index < 0:  # fills a list up
                        break
                    values = int(row["index"]), target, self.name, sign * place, int(index), "", float(score)
                    yield {**dict(zip(INSTANCE_COLUMNS, values, strict=True)), **of_unit}

    def _with_texts(self, columns: list[str], entries: Iterator[Row]) -> Iterator[Row]:
        """Entries with the texts of their train instances."""
        train = self._files.examples("train")
        while rows := list(islice(entries, BATCH)):
            texts = train.rows(sorted({row["index"] for row in rows}), without=("input_ids", "prob"))
            yield from ({**row, "text": joined(texts[row["index"]], columns)} for row in rows)

    def _repr_html_(self) -> str | None:
        """In a notebook: its list of the first query, as the report shows it."""
        if self._draw is None or not len(self._found.rows.index):
            return None
        by = {"instances" if self.lens == "instance" else "method": self.name}
        return self._draw({"test": int(self._found.rows.index[0]), **by, "lens": self.lens})

    def __repr__(self) -> str:
        return (
            f"Scores of {self.name} ({self.lens} lens), {len(self._found.rows.dataset)} queries; .to_pandas() has them"
        )


def joined(row: Row, columns: list[str]) -> str:
    """The texts of a row as one: prompt and completion as they are read, other columns with a bar between them."""
    texts = [(name, row.get(name)) for name in columns if isinstance(row.get(name), str) and row.get(name)]
    shown = [text for name, text in texts if name not in ("foil", "document", "type")]
    return ("" if any(name == "completion" for name, _ in texts) else " | ").join(map(str, shown))


def _row_of(neuron: Neuron) -> Row:
    return {name: getattr(neuron, name) for name in NEURON_COLUMNS}


def _of_queries(queries: Container[int] | None) -> Callable[[Row], bool]:
    return lambda row: queries is None or int(row["index"]) in queries
