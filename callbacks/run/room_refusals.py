"""Refusals of methods that do not fit the memory budget, counted from shapes before anything is trained.

What a plan counts refuses a run as well: a curvature whose matrices have no room is no less so behind a fit of hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.needed_memory import Need
from twinlens.callbacks.attribute.dispatch import form_of, reads_of
from twinlens.callbacks.passes.costs import Shape, peak_of
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shapes import shape_of
from twinlens.data.sampling import token_lengths


def refuse_what_has_no_room(
    session: Session, methods: Mapping[str, Any], architecture: Callable[[], Any], n_epochs: int
) -> None:
    """Refuse methods whose gradients or curvature need more than the memory budget.

    Args:
        session: of the run, its data prepared.
        methods: of the run, by name.
        architecture: gives the model of the run without values.
        n_epochs: of the fit.

    Raises:
        UserError: naming the method's setting and both amounts.
    """
    counted = [name for name, method in methods.items() if form_of(method).counts_room]
    if not counted:
        return
    if session.data.eval_batch_size == "auto":
        session = replace(session, found_batch_size=1)  # only larger batches than one row are ever found
    sizes = Sizes(session, shape_of(architecture()), n_epochs)
    for name in counted:
        reads_of(session, name, methods).cost(sizes, session.split)


class Sizes:
    """`Planned` without times.

    Args:
        session: of the run, its data prepared.
        shape: of the model.
        n_epochs: of the fit.
    """

    def __init__(self, session: Session, shape: Shape, n_epochs: int) -> None:
        self.session = session
        self.shape = shape
        self.n_epochs = n_epochs
        self.lengths = {split: token_lengths(rows) for split, rows in session.data.splits.items()}

    @property
    def times(self) -> NoTimes:
        """None."""
        return NoTimes()

    @property
    def engine_sizes(self) -> EngineSizes:
        """Sizes of the model's engines."""
        return EngineSizes(self.shape.footprint, self.session.sequences, self.shape.residual)

    def pass_memory(self, split: str, need: Need) -> int:
        """See `Planned`."""
        return peak_of(need, self.session.shards(split), self.lengths[split], self.session.memory_budget)


class NoTimes:
    """`Rates` of work that nobody waits for."""

    host = 1.0

    def neurons(self, name: str, method: Any, operations: float) -> float:
        """None."""
        return 0.0

    def rows(self, name: str, method: Any, rank: int, operations: float) -> float:
        """None."""
        return 0.0

    def whole(self, name: str, method: Any, n_classes: int, work: Any) -> float:
        """None."""
        return 0.0
