"""One line of the list of warnings: what a run says about itself, when, why it matters and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.indexed_rows import read_tokens
from twinlens.callbacks.results.run_files import RunFiles

Stage = Literal["predict", "attribute", "evaluate"]
Values = Mapping[str, object]
"""What stands in a sentence's braces."""
Directions = Mapping[tuple[str, str, str], str]
"""(evaluation, metric, method) → which direction is better: a name may be of two metrics, and a reference has none."""


def measured(row: Row) -> tuple[str, str, str]:
    """What a row of results.csv measures, by which its direction is known."""
    return str(row["evaluation"] or ""), str(row["metric"] or ""), str(row["method"] or "")


@dataclass(frozen=True)
class Facts:
    """What a run knows of itself when a stage has ended.

    Attributes:
        files: of its folder, as far as they are written.
        cut_texts: examples that were cut at the longest length.
        n_examples: of all splits.
        directions: of every result by `measured`: which direction is better, "higher" or "lower".
    """

    files: RunFiles
    cut_texts: int = 0
    n_examples: int = 0
    directions: Directions = field(default_factory=dict)

    @cached_property
    def train_tokens(self) -> list[bytes]:
        """What the model reads of each train example, for comparing."""
        return read_tokens(self.files.examples("train"))


@dataclass(frozen=True)
class RunWarning:
    """One kind of warning.

    Attributes:
        name: by which files and the table of docs/warnings.md know it.
        stage: after which it is said.
        sentence: with braces for what a run puts there.
        when: it is said, with the threshold and its reason.
        why: it matters.
        remedy: what to do, with braces as well and without a full stop.
        found: values for each sentence that is to be said of a run.
    """

    name: str
    stage: Stage
    sentence: str
    when: str
    why: str
    remedy: str
    found: Callable[[Facts], Iterator[Values]]

    def lines(self, facts: Facts) -> list[str]:
        """What is to be said of a run: each sentence with its remedy behind a semicolon."""
        return [f"{self.sentence}; {self.remedy}.".format(**values) for values in self.found(facts)]
