"""Lists of a run's methods in flat columns: for every example its train instances or units, best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from textwrap import shorten
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.attribute.score_files import AGAINST
from twinlens.callbacks.report.example_text import label_name
from twinlens.callbacks.report.listed_units import ListedUnits, addresses
from twinlens.callbacks.report.packing import Packing
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet

MAX_LISTED = 100
"""Entries kept of either end of a list, as many as methods store by default."""
MAX_ENTRIES = 2_000_000
"""Entries of all lists of a page, of six bytes each; with more, lists are shorter and the page says so."""
MAX_SHARES = 2_000_000
"""Shares of a method's entries by token that a page keeps; with more it has none, and the run's files have them."""
MIN_LISTED = 10
MOST_OF_COMPLETION = 80
"""Characters of a completion that scores are towards."""
_REMAKE = "make it again with overwrite=true"


@dataclass(frozen=True)
class Places:
    """Where examples stand on the page: index → row, of the explained split and of the train split."""

    tests: Mapping[int, int]
    train: Mapping[int, int]


def length_kept(n_lists: int) -> int:
    """Entries kept of each list where a page has so many."""
    return max(MIN_LISTED, min(MAX_LISTED, MAX_ENTRIES // max(n_lists, 1)))


def packed_instances(
    run: RunFiles, scores: ScoreSet, rows: Sequence[Mapping[str, Any]], examples: Mapping[int, Mapping[str, Any]],
    places: Places, units: ListedUnits, length: int, pack: Packing,
) -> dict[str, Any]:  # fmt: skip
    """Lists of train instances, one for each row; those of units say of which.

    Args:
        rows: of the method's scores, of examples on the page only.
        examples: rows of the explained split by index, which name targets.
        length: entries kept of either end.

    Raises:
        UserError: a list names a train instance that the run does not have, or has another number of scores.
    """
    ends: dict[str, dict[str, Any]] = {}
    for side in ("top", "bottom"):
        counts, at, score = [0], [], []
        for row in rows:
            entries = _entries(scores, row, side)[:length]
            counts.append(len(entries))
            at += [_train_place(run, places, index) for index, _ in entries]
            score += [value for _, value in entries]
        starts = list(accumulate(counts))
        ends[side] = {"start": pack.whole(starts), "at": pack.whole(at), "score": pack.real(score)}
    told: dict[str, Any] = {}
    if scores.kind == "unit":
        told["unit"] = pack.whole([units.number(addresses(row, scores.settings)[0]) for row in rows])
    return {
        **told,
        "row": pack.whole([places.tests[int(row["index"])] for row in rows]),
        "target": pack.words(_target_of_list(run, scores, examples[int(row["index"])], row) for row in rows),
        **ends,
    }


def packed_units(
    run: RunFiles, scores: ScoreSet, rows: Sequence[Mapping[str, Any]], examples: Mapping[int, Mapping[str, Any]],
    places: Mapping[int, int], units: ListedUnits, length: int, pack: Packing,
) -> dict[str, Any]:  # fmt: skip
    """Lists of units, one for each row, with the position of each where a list has several.

    Args:
        examples: rows of the split by index; empty where no target is to be named.
        places: index → row of the page, of the split that the rows are of.

    Raises:
        UserError: layers, units and scores of a row differ in number.
    """
    counts, at, position, listed = [0], [], [], []
    score: list[float] = []
    residual_layer, residual, prob = [], [], []
    shares = _Shares.of(rows, examples, length)
    for row in rows:
        layer, unit, values = row["layer"] or [], row["unit"] or [], row["score"] or []
        if not len(layer) == len(unit) == len(values):
            raise UserError(
                f"layer, unit and score of example {row['index']} in {scores.rows.path} differ in length "
                f"({len(layer)}, {len(unit)} and {len(values)}); expected one of each per neuron: {_REMAKE}."
            )
        found = addresses({**row, "layer": layer}, scores.settings)[:length]
        counts.append(len(found))
        listed.append(len(layer))
        at += [units.number(address) for address in found]
        score += values[:length]
        position += _positions(row, len(found))
        shares.add(row, len(found))
        each = row.get("completeness") or []
        worst = max(range(len(each)), key=lambda i: abs(each[i]), default=-1)
        residual_layer.append(worst)
        residual.append(each[worst] if worst >= 0 else float("nan"))
        prob.append(float("nan") if row.get("target_prob") is None else row["target_prob"])
    several = len(set(position)) > 1
    return {
        "row": pack.whole([places[int(row["index"])] for row in rows]),
        "target": pack.words(
            target_name(run, scores, examples[int(row["index"])], row) if examples else "" for row in rows
        ),
        "top": {"start": pack.whole(list(accumulate(counts))), "at": pack.whole(at), "score": pack.real(score)},
        "position": pack.whole(position) if several else None,
        "token": shares.packed(pack),
        "listed": pack.whole(listed),
        "prob": pack.real(prob),
        "residual": {"layer": pack.whole(residual_layer), "size": pack.real(residual)},
    }


class _Shares:
    """Shares of each listed unit's score by the tokens of a completion, one behind the other.

    Args:
        width: tokens of the longest completion; 0: lists have no shares, or too many for a page.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.values: list[float] = []

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], examples: Mapping[int, Mapping[str, Any]], length: int) -> _Shares:
        """For the lists of some rows, of which `length` entries are kept at most."""
        own = [row for row in rows if row.get("token")]
        width = max((len(examples.get(int(row["index"]), {}).get("answer_ids") or []) for row in own), default=0)
        entries = sum(min(length, len(row["token"])) for row in own)
        return cls(width if width > 1 and width * entries <= MAX_SHARES else 0)

    def add(self, row: Mapping[str, Any], count: int) -> None:
        """The first `count` entries of a row; NaN for tokens that its completion does not have."""
        for shares in (row.get("token") or [[]] * count)[:count] if self.width else ():
            kept = [float(share) for share in shares[: self.width]]
            self.values += kept + [float("nan")] * (self.width - len(kept))

    def packed(self, pack: Packing) -> dict[str, Any] | None:
        """For the page's header."""
        return {"width": self.width, "share": pack.real(self.values)} if self.width else None


def _target_of_list(run: RunFiles, scores: ScoreSet, example: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a list of train instances is towards; of a unit with what it adds to the target."""
    said = target_name(run, scores, example, row)
    return said if scores.kind != "unit" else f"what the unit adds to {said} ({row['contribution']:.3g} nats)"


def target_name(run: RunFiles, scores: ScoreSet, example: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a method's scores of an example are towards, `A` or `A against B`; empty where they speak of nothing."""
    if scores.settings.get("target") == "completion":
        texts = [example.get("completion", example.get("answer")) or example.get("prediction_token") or ""]
        texts += [example.get("foil") or ""] if row.get(AGAINST) is not None else []
        return " against ".join(shorten(repr(text.strip()), MOST_OF_COMPLETION, placeholder=" …'") for text in texts)
    folded = scores.settings.get("target") == "gold"
    names = run.gold_names(run.split) if folded else run.label_names
    spelled = {
        example.get(number): example.get(f"{number}_token")
        for number in ("prediction", "label")
        if f"{number}_token" in example
    }
    found = [
        run.tokens.said(row[column], spelled.get(row[column]))
        if run.of_vocabulary and row[column] >= 0
        else label_name(names, row[column])
        for column in ("target", AGAINST)
        if row.get(column) is not None
    ]
    return " against ".join(filter(None, found))


def _entries(scores: ScoreSet, row: Mapping[str, Any], side: str) -> list[tuple[int, float]]:
    """One end of a list as (train index, score); an index below 0 fills a list up and is no instance."""
    index, score = row[f"{side}_index"] or [], row[f"{side}_score"] or []
    if len(index) != len(score):
        raise UserError(
            f"{side}_index and {side}_score of example {row['index']} in {scores.rows.path} differ in length "
            f"({len(index)} and {len(score)}); expected one score per training instance: {_REMAKE}."
        )
    return [(int(i), float(s)) for i, s in zip(index, score, strict=True) if i >= 0]


def _train_place(run: RunFiles, places: Places, index: int) -> int:
    if index not in places.train:
        raise UserError(
            f"{run.examples('train').path} has no example {index} that scores name; expected one: {_REMAKE}."
        )
    return places.train[index]


def _positions(row: Mapping[str, Any], count: int) -> list[int]:
    found = row.get("position")
    return [-1 if p is None else int(p) for p in (found if isinstance(found, list) else [found] * count)[:count]]
