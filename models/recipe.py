"""The optimiser of every fit: AdamW with a linear warm-up and a schedule."""

from __future__ import annotations

from typing import Any, Literal

import torch

from twinlens.models.weight_types import refuse_rounded_steps

Schedule = Literal["constant", "linear"]


def adamw(module: Any, learning_rate: float, weight_decay: float, warmup_fraction: float, schedule: Schedule) -> Any:
    """What `configure_optimizers` returns: AdamW over all parameters, its rate set after every step.

    Args:
        module: a LightningModule attached to a Trainer, which knows the number of steps.
        learning_rate, weight_decay: of AdamW.
        warmup_fraction: share of the steps in which the rate rises linearly from zero.
        schedule: `constant`, or `linear` decay to zero after the warm-up.

    Raises:
        UserError: weights that were read in bfloat16 would be trained.
    """
    if module.weights_in == torch.bfloat16:
        refuse_rounded_steps(module.lm)
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    total = int(module.trainer.estimated_stepping_batches)
    warmup = int(warmup_fraction * total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 1.0 if schedule == "constant" else max(0.0, (total - step) / max(1, total - warmup))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
