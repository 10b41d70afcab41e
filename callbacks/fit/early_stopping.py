"""Early stopping by what a fit's best epoch is chosen by: accuracy of classes and choices, perplexity of documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from twinlens.attribution.errors import UserError


class StopByValidation(EarlyStopping):
    """Ends a fit when the metric that chooses its best epoch gets no better.

    Args:
        patience: epochs without a better one that are waited for.
        min_delta: what counts as better, in the metric's unit.
    """

    def __init__(self, patience: int = 2, min_delta: float = 0.0) -> None:
        super().__init__("validation/accuracy", mode="max", patience=patience, min_delta=min_delta)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take metric and direction from the checkpoint of the same fit; before its state is restored."""
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor is not None:
            patience, delta = self.patience, abs(self.min_delta)
            super().__init__(checkpoint.monitor, mode=checkpoint.mode, patience=patience, min_delta=delta)
        super().setup(trainer, pl_module, stage)


def require_validation(callbacks: Mapping[str, Any], monitored: tuple[str, str] | None, data: str) -> None:
    """Refuse to wait for a metric that no split gives.

    Args:
        callbacks: settings of the fit's callbacks, plain values.
        monitored: what the data choose an epoch by; None: they have no validation split.
        data: their name.

    Raises:
        UserError: naming what to add.
    """
    own = f"{StopByValidation.__module__}.{StopByValidation.__qualname__}"
    for name, node in callbacks.items():
        if monitored is None and isinstance(node, Mapping) and node.get("_target_") == own:
            raise UserError(
                f"callbacks.{name} ends the fit when validation gets no better, but data={data} have no validation "
                "split; expected one: set data.validation_fraction=0.1 where the data have that key, or leave "
                "callbacks=early_stopping out."
            )
