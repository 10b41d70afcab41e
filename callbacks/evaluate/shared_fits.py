"""Fits of an evaluation that several runs on one store share: each takes first what no other one computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from twinlens.callbacks.evaluate.refits import MoreColumns, Recipe, is_computed_elsewhere, refitted
from twinlens.callbacks.fit.stage import n_processes
from twinlens.callbacks.passes.session import Session

Fitted = dict[str, Tensor]
"""As `refitted` gives it."""


class SharedFits:
    """Outputs of refitted models by their train rows and seed, each asked for once.

    Args:
        session: of the run.
        name: the evaluation's name in the configuration.
        recipe: of the run's own fit.
        more: further columns of every output.
    """

    def __init__(self, session: Session, name: str, recipe: Recipe, more: MoreColumns | None = None) -> None:
        self.session = session
        self.name = name
        self.recipe = recipe
        self.more = more
        self._known: dict[tuple[tuple[int, ...], int], Fitted] = {}

    def prepare(self, fits: Iterable[tuple[Sequence[int] | Tensor, int]]) -> None:
        """Make, or read, all of these that no other run is at; what another run is at is waited for when asked for.

        The processes of one run ask in one order, since each follows the first one.

        Args:
            fits: train rows and seed of each.
        """
        if n_processes(self.recipe.trainer) > 1:
            return
        for rows, seed in fits:
            rows = _plain(rows)
            if not is_computed_elsewhere(self.session, self.recipe, rows, seed, self.more):
                self(rows, seed)

    def __call__(self, rows: Sequence[int] | Tensor, seed: int) -> Fitted:
        """Outputs of a model fitted on these train rows, see `refitted`."""
        rows = _plain(rows)
        key = tuple(sorted(rows)), seed
        if key not in self._known:
            self._known[key] = refitted(self.session, self.name, self.recipe, rows, seed, self.more)
        return self._known[key]


def _plain(rows: Sequence[int] | Tensor) -> Sequence[int]:
    return rows.tolist() if isinstance(rows, Tensor) else rows
