"""The page's data, made from a run's files alone: examples, train instances, units and what every method lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_from_disk

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.certificates import certificates
from twinlens.callbacks.report.explained_examples import packed_examples
from twinlens.callbacks.report.listed_units import ListedUnits
from twinlens.callbacks.report.method_lists import MAX_LISTED, Places, length_kept, packed_instances, packed_units
from twinlens.callbacks.report.neuron_passages import Passages
from twinlens.callbacks.report.packing import Packing
from twinlens.callbacks.report.prompts import listed_neurons, prompts, words_of_units
from twinlens.callbacks.report.worth import worth
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.indexed_rows import Rows
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet

MAX_TRAIN = 20_000
"""Train instances that the page keeps, all of them; of more only those that a list names."""
OWN_UNITS = 10
"""Units kept of a train instance's own list."""
_REMAKE = "make it again with overwrite=true"
_UNREAD = ("input_ids",)


@dataclass(frozen=True)
class Kept:
    """How much a page keeps.

    Attributes:
        train: train instances of which all are kept; of more those that a list names.
        listed: entries of either end of a list.
        wanted: indices of train instances that are kept in any case.
    """

    train: int = MAX_TRAIN
    listed: int = MAX_LISTED
    wanted: Sequence[int] = ()


WHOLE = Kept()
"""What the page of a run keeps."""


def island(
    run: RunFiles,
    chosen: Sequence[int],
    results: Sequence[Row],
    charts: Sequence[Mapping[str, Any]],
    kept: Kept = WHOLE,
) -> str:
    """The data of a page as text, see `Packing`.

    Args:
        chosen: indices of the examples to keep, in their order.
        results: rows of results.csv, which say what a method is worth.
        charts: what the page draws, see `chart_data`.
        kept: how much of it.

    Raises:
        UserError: a file is damaged, or scores name an example or a train instance that the run does not have.
    """
    pack, units = Packing(), ListedUnits()
    tests = _rows_of(run, run.split, chosen)
    by_index = {int(row["index"]): row for row in tests}
    rows = {scores.name: _rows(scores, chosen) for scores in run.scores}
    train = _train_rows(run, rows, kept)
    places = Places(
        {int(row["index"]): place for place, row in enumerate(tests)},
        {int(row["index"]): place for place, row in enumerate(train)},
    )
    length = min(length_kept(sum(2 * len(found) for found in rows.values())), kept.listed)
    methods = [
        _method(run, scores, rows[scores.name], by_index, places, units, length, pack, results)
        for scores in run.scores
    ]  # fmt: skip
    looked_into = prompts(run)
    for name in listed_neurons(looked_into):
        units.number(name)
    own = [_own_units(run, name, found, places, units, pack) for name, found in _train_lists(run)]
    return pack.text(
        {
            "format": 1,
            "tests": packed_examples(run, run.split, tests, run.text_columns(run.split), pack),
            "train": packed_examples(run, "train", train, run.text_columns("train") if train else [], pack),
            "explained": len(run.examples(run.split).dataset),
            "length": length,
            "methods": methods,
            "own": own,
            "units": units.packed(Passages(run.path), words_of_units(results), pack),
            "prompts": looked_into,
            "certificates": certificates(run, places.tests),
            "charts": list(charts),
        }
    )


def _method(
    run: RunFiles, scores: ScoreSet, rows: Sequence[Mapping[str, Any]], examples: Mapping[int, Mapping[str, Any]],
    places: Places, units: ListedUnits, length: int, pack: Packing, results: Sequence[Row],
) -> dict[str, Any]:  # fmt: skip
    if scores.kind == "neuron":
        lists = packed_units(run, scores, rows, examples, places.tests, units, length, pack)
    else:
        lists = packed_instances(run, scores, rows, examples, places, units, length, pack)
    said = {"sign": _said(scores, "sign"), "measure": _said(scores, "unit"), "preset": _said(scores, "preset")}
    return {
        "name": scores.name,
        "kind": scores.kind,
        "control": scores.control,
        "seed": f"seed {scores.seed}, one of {len(scores.seeds)}" if len(scores.seeds) > 1 else "",
        **said,
        "worth": worth(results, scores.name),
        "source": _source(run, scores),
        **lists,
        "summary": _summary(scores, places, pack),
    }


def _said(scores: ScoreSet, name: str) -> str:
    value = scores.settings.get(name)
    return value if isinstance(value, str) else ""


def _source(run: RunFiles, scores: ScoreSet) -> dict[str, Any] | None:
    """The instance method whose first instances a list of neurons names the best neuron of, one after the other.

    With `dedup` an entry is the first instance of a neuron, found by its score.
    """
    source = scores.settings.get("source")
    if scores.kind != "neuron" or not any(one.name == source and one.kind == "instance" for one in run.scores):
        return None
    return {"name": source, "dedup": scores.settings.get("dedup") is True}


def _summary(scores: ScoreSet, places: Places, pack: Packing) -> dict[str, Any] | None:
    """Votes, mean, largest and self-influence of every train instance over all explained examples; NaN for none."""
    if scores.summary is None:
        return None
    here = np.array([places.train.get(int(index), -1) for index in scores.summary.index], dtype=np.int64)
    columns = {}
    for name in ("votes", "mean", "max", "self_influence"):
        values = np.full(len(places.train), np.nan)
        if name in scores.summary.dataset.column_names:
            found = scores.summary.column(name).astype(np.float64)
            values[here[here >= 0]] = found[here >= 0]
        columns[name] = pack.real(values)
    return columns


def _rows(scores: ScoreSet, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """A method's rows of the chosen examples, in the order of the page; those of units, several for each, as stored."""
    if scores.kind != "unit":
        return list(scores.rows.rows(chosen).values())
    return [row for found in scores.rows.every(sorted(chosen)).values() for row in found]


def _rows_of(run: RunFiles, split: str, indices: Sequence[int]) -> list[dict[str, Any]]:
    rows = run.examples(split).rows(indices, without=_UNREAD)
    missing = [index for index in indices if index not in rows]
    if missing:
        raise UserError(
            f"{run.examples(split).path} has no example {missing[0]} that scores name; expected one: {_REMAKE}."
        )
    return [rows[index] for index in indices]


def _train_rows(run: RunFiles, rows: Mapping[str, Sequence[Mapping[str, Any]]], kept: Kept) -> list[dict[str, Any]]:
    """Train instances that the page keeps: none where no method lists one."""
    listing = [scores for scores in run.scores if scores.kind != "neuron"]
    if not listing:
        return []
    examples = run.examples("train")
    if len(examples.index) <= kept.train:
        return _rows_of(run, "train", examples.index.tolist())
    wanted = {
        int(index)
        for scores in listing
        for row in rows[scores.name]
        for side in ("top_index", "bottom_index")
        for index in (row[side] or [])[: kept.listed]
        if index >= 0
    }
    return _rows_of(run, "train", sorted(wanted.union(kept.wanted)))


def _train_lists(run: RunFiles) -> list[tuple[str, Rows]]:
    """Lists of units of the train split, of methods that have them."""
    found = []
    for path in sorted((run.path / "scores").glob("*/train")) if run.split != "train" else []:
        rows = Rows(path, _opened(path))
        if {"index", "layer", "unit", "score"} <= set(rows.dataset.column_names):
            found.append((path.parent.name, rows))
    return found


def _opened(path: Path) -> Any:
    try:
        return load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); expected a dataset: {_REMAKE}.") from None


def _own_units(
    run: RunFiles, name: str, rows: Rows, places: Places, units: ListedUnits, pack: Packing
) -> dict[str, Any]:
    """Units of train instances: those that act in them, or, where a method says of what it is an influence, `built`."""
    listed = list(rows.rows([index for index in rows.index.tolist() if index in places.train]).values())
    settings = run.method_settings(rows.path.parent, name)
    scores = ScoreSet(name, "neuron", rows, settings)
    built = "functional" in settings
    found: dict[str, Any] = {}
    if built and "explained" in rows.dataset.column_names:
        asked = [index for row in listed for index in (row["explained"] or [])[:OWN_UNITS]]
        found["explained"] = pack.whole([places.tests.get(int(index), -1) for index in asked])
    return {
        "name": name,
        "built": built,
        "measure": _said(scores, "unit"),
        **found,
        **packed_units(run, scores, listed, {}, places.train, units, OWN_UNITS, pack),
    }
