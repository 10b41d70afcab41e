"""Forward passes behind what is explained: of prompts as they are, or of these with their completions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from twinlens.attribution.completions import explained_losses
from twinlens.attribution.protocols import Batch
from twinlens.attribution.targets import Targets


def explained_batch(targets: Targets, batch: Batch) -> Batch:
    """The batch as what is explained is read off it: prompts, or these with their completions."""
    completions = targets.completions
    return batch if completions is None else completions.at(batch["index"].cpu()).behind(batch)


def explained_scores(model: Any, targets: Targets, batch: Batch) -> Tensor:
    """What is differentiated of an `explained_batch`: logits, [examples, outputs]; of completions what is explained
    less its sign, [examples]."""
    return model(batch) if targets.completions is None else explained_losses(model, targets.completions, batch)
