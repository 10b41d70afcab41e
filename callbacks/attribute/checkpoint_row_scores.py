"""Scores over stored rows of projected gradients under the weights at the end of every kept epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.instance.tracin_rows import CheckpointRows
from twinlens.callbacks.attribute.instance_scores import Side
from twinlens.callbacks.attribute.reads import PassCost, Planned
from twinlens.callbacks.attribute.stored_gradients import gradient_inputs, stored_rows
from twinlens.callbacks.attribute.stored_row_scores import RowReads
from twinlens.callbacks.passes.session import Epoch, Session
from twinlens.callbacks.store.fingerprints import fingerprint_of


class CheckpointRowReads(RowReads):
    """Rows of projected gradients under every kept epoch's weights: `CheckpointRows`.

    What is explained is that of the explained model, as with head inputs.
    """

    needs_epochs = True

    def load(self, split: str, side: Side) -> CheckpointRows:  # type: ignore[override]  # of every epoch
        """The split's."""
        (wanted,) = self._wanted(split, side)
        return CheckpointRows(
            tuple((stored_rows(self._at(epoch), wanted), epoch.learning_rate) for epoch in self.session.epochs)
        )

    def identify(self, split: str, side: Side) -> dict[str, Any]:
        """What the rows of every epoch depend on, and its learning rate."""
        (wanted,) = self._wanted(split, side)
        return {
            "epochs": [
                (
                    fingerprint_of(gradient_inputs(replace(self.session, weights=epoch.weights), wanted)),
                    epoch.learning_rate,
                )
                for epoch in self.session.epochs
            ]
        }

    def cost(self, plan: Planned, split: str) -> PassCost:
        """Passes under every epoch's weights."""
        once, n_epochs = super().cost(plan, split), plan.n_epochs
        seconds = None if once.seconds is None else n_epochs * once.seconds
        return replace(once, seconds=seconds, disk=n_epochs * once.disk)

    def _at(self, epoch: Epoch) -> Session:
        """The run with the weights of an epoch."""
        assert self.session.open_epoch is not None, "epochs are predicted before methods read them"
        return replace(self.session, weights=epoch.weights, model=self.session.open_epoch(str(epoch.folder)))


class SegmentRowReads(CheckpointRowReads):
    """Train rows under the weights of every epoch up to the explained one, each with the rows of its curvature and the
    sum of its learning rates; rows of what is explained under the explained model's weights alone.
    """

    needs_rate_sums = True

    def load(self, split: str, side: Side) -> CheckpointRows | GradientRows:  # type: ignore[override]  # by side
        """The split's."""
        if side == "test":
            return RowReads.load(self, split, side)
        steps = []
        for epoch in self._segments():
            session = self._at(epoch)
            rows, *fisher = [stored_rows(session, wanted) for wanted in self._wanted(split, side)]
            steps.append((replace(rows, fisher=fisher[0]) if fisher else rows, epoch.rate_sum))
        return CheckpointRows(tuple(steps))

    def identify(self, split: str, side: Side) -> dict[str, Any]:
        """What the rows of every epoch depend on, and the sum of its learning rates."""
        if side == "test":
            return RowReads.identify(self, split, side)
        found = []
        for epoch in self._segments():
            session = replace(self.session, weights=epoch.weights)
            wanted = [fingerprint_of(gradient_inputs(session, one)) for one in self._wanted(split, side)]
            found.append((wanted, epoch.rate_sum))
        return {"segments": found}

    def _segments(self) -> tuple[Epoch, ...]:
        """The epochs up to that whose weights are explained: what was learnt behind it is not in the model."""
        epochs = self.session.epochs
        last = next((place for place, epoch in enumerate(epochs) if epoch.weights == self.session.weights), len(epochs))
        return epochs[: last + 1]
