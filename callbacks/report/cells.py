"""Form of the page in a notebook's cell: what is asked about, without the charting library and without an address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinlens.callbacks.report.chosen_examples import choose_examples
from twinlens.callbacks.report.island import WHOLE, Kept
from twinlens.callbacks.results.run_files import RunFiles

MAX_EXAMPLES = 20
"""Examples of a cell, beside those that are asked about; the run's report.html has more."""
MAX_TRAIN = 200
"""Train instances of which a cell keeps all; of more those that a list names."""
MAX_LISTED = 30
"""Entries kept of either end of a list, if no more are asked for."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows.

    Attributes:
        start: the view, as the page's address names it: `test=17&method=ig`, `neuron=ffn.3.17` or `examples`.
        examples: indices of explained examples that have to be there.
        train: indices of train instances that have to be there.
        figures: whether it carries the library that draws figures (2 MB); else their numbers stand in tables.
        listed: entries of either end of a list.
    """

    start: str
    examples: Sequence[int] = ()
    train: Sequence[int] = ()
    figures: bool = False
    listed: int = MAX_LISTED

    @property
    def kept(self) -> Kept:
        """How much of the run's data it has."""
        return Kept(MAX_TRAIN, min(self.listed, WHOLE.listed), self.train)

    @property
    def whole(self) -> bool:
        """Whether results and their figures are part of it; beside one example, instance or neuron they are not."""
        return "=" not in self.start

    def chosen(self, run: RunFiles) -> list[int]:
        """Indices of its examples in their own order: those asked about, and some as the page of the run chooses."""
        return sorted({*self.examples[:MAX_EXAMPLES], *choose_examples(run, MAX_EXAMPLES)})
