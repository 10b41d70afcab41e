"""Scores of a method as tables: training instances or neurons of every query, best first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from twinlens.attribution.neuron.ranking import SITES
from twinlens.callbacks.report.method_lists import target_name
from twinlens.callbacks.report.neuron_passages import Passage, Passages
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet

if TYPE_CHECKING:
    import pandas

INSTANCE_COLUMNS = ("query", "target", "method", "rank", "index", "text", "score")
OF_UNITS = ("unit_kind", "site", "layer", "unit")
NEURON_COLUMNS = ("query", "target", "method", "rank", "layer", "site", "unit", "position", "score")
UNIT_COLUMNS = (*INSTANCE_COLUMNS, *OF_UNITS)
Row = dict[str, Any]


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
    _passages: Passages = field(repr=False, compare=False)

    def texts(self) -> list[Passage]:
        """Training texts that activate it most, strongest first: index, activation, words before, the marked token and
        words after it; empty where the run searched none (`neuron_texts=0`, or no train texts)."""
        return self._passages.of(self.site, self.layer, self.unit)


class Scores:
    """Lists of one method.

    Args:
        files: of the run.
        found: of the method.
        passages: of the run's neurons.
        held: what has to live as long as they are read.

    Attributes:
        name: of the method.
        lens: `instance`, `neuron`, or `unit`: training instances of single units of a prediction.
        settings: method.yaml: resolved settings, sign and unit.
    """

    def __init__(self, files: RunFiles, found: ScoreSet, passages: Passages, held: object = None) -> None:
        self._held = held
        self.name = found.name
        self.lens: Literal["instance", "neuron", "unit"] = found.kind
        self.settings = found.settings
        self._files = files
        self._found = found
        self._passages = passages

    def to_pandas(self, bottom: bool = False) -> pandas.DataFrame:
        """A row for each entry, best first: query, target, method, rank and score; of instances the row's `index` and
        `text`, of neurons `layer`, `site`, `unit` and `position`, of units' instances both.

        Args:
            bottom: the lowest training instances as well, with the ranks −1 (the lowest), −2 and so on.
        """
        import pandas

        columns = {"instance": INSTANCE_COLUMNS, "neuron": NEURON_COLUMNS, "unit": UNIT_COLUMNS}[self.lens]
        return pandas.DataFrame(list(self.rows(bottom)), columns=list(columns))

    def rows(self, bottom: bool = False) -> Iterator[Row]:
        """The same, row by row."""
        return map(_row_of, self.neurons()) if self.lens == "neuron" else self._instances(bottom)

    def neurons(self) -> Iterator[Neuron]:
        """Units of a neuron method, query by query, best first; none of an instance method."""
        if self.lens != "neuron":
            return
        for row, target in self._rows():
            n = len(row["layer"] or [])
            sites = row.get("site") or [SITES[0]] * n
            places = row.get("position") or [-1] * n
            entries = zip(row["layer"] or [], sites, row["unit"] or [], places, row["score"] or [], strict=True)
            for rank, (layer, site, unit, position, score) in enumerate(entries, 1):
                where = int(layer), str(site), int(unit), int(position), float(score)
                yield Neuron(int(row["index"]), target, self.name, rank, *where, self._passages)

    def named(self, first: int) -> dict[int, list[Any]]:
        """What the first places of every query's list name: training rows, or (layer, site, unit)."""
        found: dict[int, list[Any]] = {}
        for row in self.rows():
            if row["rank"] <= first:
                unit = tuple(row[name] for name in ("layer", "site", "unit") if name in row)
                named = (*unit, *((row["index"],) if "index" in row else ())) if unit else row["index"]
                found.setdefault(row["query"], []).append(named)
        return found

    def _rows(self) -> Iterator[tuple[Row, str]]:
        """Stored rows with what their scores are towards."""
        examples = self._files.examples(self._files.split)
        for row in self._found.rows.dataset:
            index = int(row["index"])
            example = examples.rows([index], without=("input_ids", "prob"))[index]
            yield row, target_name(self._files, self._found, example, row)

    def _instances(self, bottom: bool) -> Iterator[Row]:
        train = self._files.examples("train")
        columns = self._files.text_columns("train")
        for row, target in self._rows():
            ends = [("top", 1)] + ([("bottom", -1)] if bottom else [])
            listed = {int(index) for end, _ in ends for index in row[f"{end}_index"]}
            texts = train.rows(sorted(listed), without=("input_ids", "prob"))
            for end, sign in ends:
                entries = zip(row[f"{end}_index"], row[f"{end}_score"], strict=True)
                for place, (index, score) in enumerate(entries, 1):
                    own = int(row["index"]), target, self.name, sign * place, int(index)
                    values = (*own, joined(texts[int(index)], columns), float(score))
                    of_unit = {name: row[name] for name in OF_UNITS if self.lens == "unit"}
                    yield {**dict(zip(INSTANCE_COLUMNS, values, strict=True)), **of_unit}

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
