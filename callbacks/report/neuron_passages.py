"""Passages of the corpus that activate a shown neuron most, read from the run's `neurons/train/` where it is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk

from twinlens.attribution.errors import UserError

FOLDER = ("neurons", "train")
_NEEDED = ("site", "layer", "unit", "top_index", "top_activation", "top_before", "top_marked", "top_after")


@dataclass(frozen=True)
class Passage:
    """Words around a token that activates a neuron; `marked` is the token."""

    index: int
    activation: float
    before: str
    marked: str
    after: str


class Passages:
    """Looks passages up by the address of a neuron; empty where the run has none.

    Args:
        run_dir: the run's folder.

    Raises:
        UserError: the file is damaged, or lacks a column.
    """

    def __init__(self, run_dir: Path) -> None:
        path = run_dir.joinpath(*FOLDER)
        self._rows: Dataset | None = None
        self._place: dict[tuple[str, int, int], int] = {}
        if not path.is_dir():
            return
        try:
            rows = load_from_disk(str(path))
            lacking = [name for name in _NEEDED if name not in rows.column_names]
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); expected a dataset: make it again with overwrite=true."
            ) from None
        if lacking:
            raise UserError(
                f"{path} has no column {lacking[0]}; expected the texts of neurons: make it again with overwrite=true."
            )
        self._rows = rows.select_columns(list(_NEEDED))
        addresses = zip(*(rows[name][:] for name in ("site", "layer", "unit")), strict=True)
        self._place = {address: place for place, address in enumerate(addresses)}

    def of(self, site: str, layer: int, unit: int) -> list[Passage]:
        """The strongest first."""
        place = self._place.get((site or "ffn", layer, unit))
        if place is None or self._rows is None:
            return []
        row: dict[str, Any] = self._rows[place]
        shown = zip(row["top_before"], row["top_marked"], row["top_after"], strict=True)
        return [
            Passage(int(row["top_index"][number]), float(row["top_activation"][number]), *words)
            for number, words in enumerate(shown)
        ]
