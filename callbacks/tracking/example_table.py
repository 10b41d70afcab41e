"""Table of examples with both lenses: text, label, prediction, target, best training instances and best units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.callbacks.report.chosen_examples import choose_examples
from twinlens.callbacks.report.example_text import cut_text, label_name, whole_text
from twinlens.callbacks.report.explained_examples import verdict
from twinlens.callbacks.report.listed_units import address_text, addresses, shown_name
from twinlens.callbacks.report.method_lists import target_name
from twinlens.callbacks.report.neuron_passages import Passages
from twinlens.callbacks.report.prompts import words_of_units
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet
from twinlens.callbacks.tracking.findings import Sheet, shown

EXAMPLES = 50
"""Examples of the table: half wrong predictions, half right ones, as far as there are."""
INSTANCES = 3
"""Training instances named of each list."""
UNITS = 5
"""Neurons, heads or layers named of each list."""
WORDS = 3
"""Words of a neuron: outputs that its value raises, else tokens that activate it."""
LONGEST = 300
"""Signs of a text, where an example or an instance is longer it is cut and says so."""


def example_table(run: RunFiles) -> Sheet:
    """The table, one row for each chosen example; each method of the run has a column.

    A cell of a method holds a line for each entry of its list, the best first: `0.83  #17 (supported) text …` or
    `1.2  L3 · 17 (word, word)`. Units are those of the method's own scores.

    Args:
        run: files of a finished run.

    Raises:
        UserError: a file of the run is damaged (named).
    """
    chosen = choose_examples(run, EXAMPLES)
    texts = run.text_columns(run.split)
    tests = run.examples(run.split).rows(chosen, without=("input_ids",))
    lists = {scores.name: _lists(scores, chosen) for scores in run.scores}
    lines = _Lines(run)
    rows = []
    for index in chosen:
        example = tests[index]
        of_methods = [(scores, lists[scores.name].get(index, [])) for scores in run.scores]
        targets = [target_name(run, scores, example, row) for scores, found in of_methods for row in found[:1]]
        cells: list[Cell] = [
            index,
            *(cut_text(whole_text(example.get(column)), LONGEST) for column in texts),
            example.get("label_token") or label_name(run.gold_names(run.split), example.get("label")),
            example.get("prediction_token") or label_name(run.label_names, example.get("prediction")),
            verdict(example),
            "; ".join(dict.fromkeys(filter(None, targets))),
            *("\n".join(lines.of(scores, found)) for scores, found in of_methods),
        ]
        rows.append([shown(cell) for cell in cells])
    columns = ("index", *texts, "label", "prediction", "verdict", "target", *(scores.name for scores in run.scores))
    total = len(run.examples(run.split).dataset)
    cut = f"{len(rows)} of {total} examples, " if len(rows) < total else ""
    return Sheet(
        columns, rows, f"{cut}{INSTANCES} training instances and {UNITS} units of each list; report.html has more"
    )


def _lists(scores: ScoreSet, chosen: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """The rows of a method by example: one each, or one for each unit."""
    if scores.kind == "unit":
        return scores.rows.every(sorted(chosen))
    return {index: [row] for index, row in scores.rows.rows(chosen).items()}


class _Lines:
    """Lines on the entries of lists, which know the training instances and the words of neurons."""

    def __init__(self, run: RunFiles) -> None:
        self.run = run
        self.words = words_of_units(run.results)
        self.passages = Passages(run.path)
        self._texts: list[str] | None = None

    def of(self, scores: ScoreSet, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """The lines of one example's cell."""
        if scores.kind == "neuron":
            return [line for row in rows for line in self._units(scores, row)]
        if scores.kind == "instance":
            return [line for row in rows for line in self._instances(row, INSTANCES)]
        named = [(shown_name(addresses(row, scores.settings)[0]), row) for row in rows[:UNITS]]
        return [f"{name} ← {line}" for name, row in named for line in self._instances(row, 1)]

    def _units(self, scores: ScoreSet, row: Mapping[str, Any]) -> list[str]:
        found = addresses({**row, "layer": row["layer"] or []}, scores.settings)[:UNITS]
        lines = []
        for address, score in zip(found, row["score"] or [], strict=False):
            kind, site, _, layer, unit, _ = address
            words = self.words.get(address_text(address), [])
            if not words and kind == "neuron":
                words = list(dict.fromkeys(passage.marked for passage in self.passages.of(site, layer, unit)))
            said = f" ({', '.join(word.strip() for word in words[:WORDS])})" if words else ""
            lines.append(f"{score:.3g}  {shown_name(address)}{said}")
        return lines

    def _instances(self, row: Mapping[str, Any], count: int) -> list[str]:
        pairs = zip(row["top_index"] or [], row["top_score"] or [], strict=False)
        best = [(int(index), float(score)) for index, score in pairs if index >= 0][:count]
        known = self.run.examples("train").rows([index for index, _ in best], without=("input_ids",))
        return [f"{score:.3g}  #{index} {self._text(known.get(index, {}))}".rstrip() for index, score in best]

    def _text(self, row: Mapping[str, Any]) -> str:
        if self._texts is None:
            self._texts = self.run.text_columns("train")
        label = row.get("label_token") or label_name(self.run.gold_names("train"), row.get("label"))
        text = " | ".join(whole_text(row.get(column)).replace("\n", " / ") for column in self._texts)
        return f"{f'({label}) ' if label else ''}{cut_text(text, LONGEST)}"
