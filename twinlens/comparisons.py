"""Comparison of two runs in Python: numbers that both have, and what their lists share."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.sections import run_name
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.score_tables import Scores
from twinlens.views import texts_of

if TYPE_CHECKING:
    import pandas

COMPARED = 10
"""Places of two lists that are compared."""
NUMBERS = ("value", "stderr", "n", "low", "high")
"""Columns of results.csv that are measured; all others say what of."""


class Comparable(Protocol):
    """What is compared of a run: its folder, the files in it, its lists by method, and `results()`."""

    path: Path
    files: RunFiles

    @property
    def scores(self) -> Mapping[str, Scores]:
        """Lists by the name of the method."""

    def results(self) -> pandas.DataFrame:
        """Rows of results.csv."""


class Comparison:
    """Two runs side by side.

    Args:
        run, other: the two.

    Attributes:
        notes: what is not compared, a sentence each.

    Raises:
        UserError: the two explain no text in common.
    """

    def __init__(self, run: Comparable, other: Comparable) -> None:
        self.run = run
        self.other = other
        self._pairs, alone = _common(run.files, other.files)
        self._one_model = _one_model(run.files, other.files)
        self.notes = [
            f"{n} of the texts that {side.path} explains have no match in the other run: their lists are not compared, "
            "while results are of all texts of each run"
            for side, n in zip((run, other), alone, strict=True)
            if n
        ]
        if not self._one_model:
            self.notes.append("the runs have different models: their neurons are different things and not compared")

    def results(self) -> pandas.DataFrame:
        """Numbers that both runs have: what they are of, `value`, `other`, and `difference` (other less value)."""
        import pandas

        one, two = self.run.results(), self.other.results()
        if one.empty or two.empty:
            return pandas.DataFrame(columns=["evaluation", "metric", "method", "value", "other", "difference"])
        keys = [name for name in one.columns if name in two.columns and name not in NUMBERS]
        keys = [name for name in keys if name not in ("model", "data", "seed", "setting")]
        if "setting" in one and "setting" in two and any(side.duplicated(keys).any() for side in (one, two)):
            keys.append("setting")  # one method with several
        both = one.merge(two, on=keys, suffixes=("", "_other"))[[*keys, "value", "value_other"]]
        both = both.rename(columns={"value_other": "other"})
        both["difference"] = both["other"] - both["value"]
        return both.dropna(axis=1, how="all")

    def lists(self, first: int = COMPARED) -> pandas.DataFrame:
        """Methods that both runs have, by query: how many of the first places name the same, and the share of them.

        Queries and training instances are the same where their texts are, wherever they stand. Neurons are compared
        where both runs have one model, by its name and its sizes: those of two models are different things.

        Args:
            first: places of each list.

        Returns:
            A row for each method and query that both have: method, query (its number in the first run), first (places
            that are compared), shared, share.

        Raises:
            UserError: no place to compare.
        """
        import pandas

        if isinstance(first, bool) or not isinstance(first, int) or first < 1:
            raise UserError(f"first={first!r} places of each list; expected a whole number from 1 on: write first=10.")
        rows: list[dict[str, Any]] = []
        for name in (name for name in self.run.scores if name in self.other.scores):
            kinds = {side.scores[name].lens for side in (self.run, self.other)}
            if len(kinds) > 1 or (kinds != {"instance"} and not self._one_model):
                continue
            one, two = (side.scores[name].named(first) for side in (self.run, self.other))
            for query, theirs in ((query, theirs) for query, theirs in self._pairs if query in one and theirs in two):
                length = min(len(one[query]), len(two[theirs]))
                shared = (Counter(one[query][:length]) & Counter(two[theirs][:length])).total()
                share = shared / length if length else float("nan")
                rows.append({"method": name, "query": query, "first": length, "shared": shared, "share": share})
        return pandas.DataFrame(rows, columns=["method", "query", "first", "shared", "share"])

    def _repr_html_(self) -> str:
        """In a notebook: both tables, and what is not compared."""
        titled = (("numbers", self.results()), ("lists", self.lists()))
        shown = [f"<p>{name}</p>{table.to_html(index=False, border=0)}" for name, table in titled if len(table)]
        return "".join([*shown, *(f"<p>note: {html.escape(note)}</p>" for note in self.notes)])

    def show(self) -> None:
        """Print both tables, and what is not compared."""
        for title, table in (("numbers", self.results()), ("lists", self.lists())):
            print(f"{title} of {self.run.path} and {self.other.path}")
            print(table.to_string(index=False) if len(table) else "  none in both")
        for note in self.notes:
            print(f"note: {note}")

    def __repr__(self) -> str:
        return f"Comparison of {self.run.path} and {self.other.path}; .results(), .lists() and .show() have it"


def _common(one: RunFiles, two: RunFiles) -> tuple[list[tuple[int, int]], list[int]]:
    """Numbers of the explained examples that have the same text in both runs, of several the first with the first; and
    how many each run has alone.

    Raises:
        UserError: there is none.
    """
    sides: list[dict[tuple[str, int], int]] = []
    for files in (one, two):
        seen: Counter[str] = Counter()
        side: dict[tuple[str, int], int] = {}
        for index, text in texts_of(files, files.split, files.examples(files.split).index.tolist()).items():
            side[text, seen[text]] = index
            seen[text] += 1
        sides.append(side)
    found = [(index, sides[1][key]) for key, index in sides[0].items() if key in sides[1]]
    if not found:
        raise UserError(
            f"{one.path} and {two.path} explain no text in common; expected runs of which some explained texts are the "
            "same: compare runs on the same texts."
        )
    return sorted(found), [len(side) - len(found) for side in sides]


def _one_model(one: RunFiles, two: RunFiles) -> bool:
    """Whether both have a model of one name, type and size."""
    sizes = [{key: value for key, value in run.model_config.items() if type(value) is int} for run in (one, two)]
    types = [run.model_config.get("model_type") for run in (one, two)]
    return sizes[0] == sizes[1] and types[0] == types[1] and run_name(one, "model") == run_name(two, "model")
