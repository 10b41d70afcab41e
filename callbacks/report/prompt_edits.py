"""The record of edits of a run's prompts (`prompt_edits.csv`) as the page keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.evaluate.prompt_record import COLUMNS, RECORD
from twinlens.callbacks.results.results_csv import read_table

FILE = f"prompt{RECORD}"
_AGAIN = "run the evaluation again"


@dataclass
class Edits:
    """What was recorded of one token.

    Attributes:
        target: number of the output that is asked about.
        others: the best other outputs of the model as it is, [text, number, log-probability].
        factors: what neurons were multiplied by, in the order of the file.
        by_neuron: (kind, name) → for each factor [log-probability, others], as the file has them.
    """

    target: int = -1
    others: list[list[Any]] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    by_neuron: dict[tuple[str, str], dict[float, list[Any]]] = field(default_factory=dict)

    def of(self, kind: str, name: str) -> list[Any]:
        """For each factor [log-probability, others] of a listed neuron; empty where nothing was recorded of it."""
        found = self.by_neuron.get((kind, name), {})
        return [found[factor] for factor in self.factors] if len(found) == len(self.factors) else []


def read_edits(run: Path) -> dict[tuple[int, int], Edits]:
    """The record by (index of the example, token); empty where the run has none.

    Raises:
        UserError: a line that cannot be read, named.
    """
    path, found = run / FILE, dict[tuple[int, int], Edits]()
    if not path.is_file():
        return {}
    for number, cells in read_table(path, COLUMNS, _AGAIN):
        try:
            edits = found.setdefault((int(cells["index"]), int(cells["token"])), Edits())
            factor, log_prob, others = float(cells["factor"]), float(cells["log_prob"]), _others(cells)
            edits.target = int(cells["target_id"])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"line {number} of {path} cannot be read ({error}); expected numbers and tokens as "
                f"evaluation=prompt writes them: {_AGAIN}."
            ) from None
        if not cells["neuron"]:
            edits.others = others
            continue
        edits.factors += [] if factor in edits.factors else [factor]
        edits.by_neuron.setdefault((cells["kind"], cells["neuron"]), {})[factor] = [log_prob, others]
    return found


def _others(cells: dict[str, str]) -> list[list[Any]]:
    count: Sequence[int] = range(1, 1 + sum(name.startswith("other") and name.endswith("_id") for name in cells))
    return [
        [str(json.loads(cells[f"other{i}"])), int(cells[f"other{i}_id"]), float(cells[f"other{i}_log_prob"])]
        for i in count
    ]
