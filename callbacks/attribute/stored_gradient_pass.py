"""The pass over a split that takes its gradients: whose losses, which labels, what is summed beside the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.gradients.fisher import fisher_cotangents
from twinlens.attribution.gradients.options import GradientOptions, Per
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.instance.over_layers import Losses
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.passes.predict_pass import PassResult
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import PARTIAL_SUMS


@dataclass(frozen=True)
class Wanted:
    """One entry of the stage `gradients`.

    Attributes:
        options: of the method.
        split: whose rows.
        losses: see `Losses`.
    """

    options: GradientOptions
    split: str
    losses: Losses = "loss"

    @property
    def per(self) -> Per:
        """What has a row: tokens in the train split alone, and never in the curvature."""
        return self.options.per if self.split == "train" and self.losses == "loss" else "example"


def documents(session: Session, split: str) -> bool:
    """Whether a row's loss is that of a whole text: for next-token data the train split's, as in training."""
    return session.readout.has_text_losses(split)


class BatchGradients:
    """Runs the model on a batch and takes its rows.

    Args:
        session: of the run.
        wanted: which gradients.
        plan: layers and projections.
    """

    def __init__(self, session: Session, wanted: Wanted, plan: RowPass) -> None:
        self.model: Any = session.readable
        self.losses = wanted.losses
        self.plan = plan
        self.whole_texts = documents(session, wanted.split)
        self.title = f"gradients of {wanted.split}"
        self.labels: Tensor | None = None
        self.fold: Tensor | None = None
        if not self.whole_texts:
            self.labels, self.fold = session_labels(session, wanted)

    def __call__(self, batch: Batch) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, int]]]:
        """See `RowPass.of_batch`."""
        with recording(self.plan.layers) as tape:
            scores, cotangents = self._scores(batch)
            require_finite(scores.detach(), f"a score in the {self.title}", batch["index"])
            return self.plan.of_batch(tape, scores, cotangents, batch["attention_mask"])

    def _scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.whole_texts:
            losses = self.model.token_losses(batch)[0].sum(1)
            return losses, torch.ones_like(losses)[None]
        scores = self.model(batch)
        assert self.labels is not None
        labels = self.labels[batch["index"].cpu()].to(scores.device)
        if self.losses == "expectation":
            return scores, fisher_cotangents(scores, labels, "expectation")
        return scores, logit_cotangents(scores.detach().double(), labels, self.fold)[None]


def session_labels(session: Session, wanted: Wanted) -> tuple[Tensor, Tensor | None]:
    """Labels of the losses, [examples]: gold or predicted classes; of a prompt its answer, or else the predicted token.

    Returns:
        the labels, and the split's fold.
    """
    predictions = session.predictions[wanted.split]
    gold, predicted = predictions.column("label"), predictions.column("prediction")
    fold = session.data.folds.get(wanted.split)
    of_class = None if fold is None else torch.tensor(fold.of_class)
    if wanted.options.labels == "gold":
        return session.readout.labels(gold, predicted), of_class
    return predicted if of_class is None else of_class[predicted], of_class


def gradient_need(session: Session, plan: RowPass, rank: int) -> Need:
    """A full forward with all that backward keeps, and the rows with their parts."""
    footprint, read = session.footprint, session.sequences.read
    numbers = plan.layout.n_numbers

    def each(columns: int) -> int:
        scores = 3 * 4 * footprint.n_outputs * columns if footprint.n_outputs else 0
        return (
            read * footprint.sequence(columns) + scores + 2 * 4 * numbers * (columns if plan.per == "token" else rank)
        )

    return Need(each, each)


def partial_sums(sums: Sequence[tuple[Tensor, Tensor, int]]) -> dict[str, Tensor]:
    """Sums of one batch, with an axis along which those of a shard's batches are put together."""
    parts = {}
    for layer, (inputs, outputs, n_tokens) in enumerate(sums):
        parts[f"{PARTIAL_SUMS}{layer}/inputs"] = inputs[None]
        parts[f"{PARTIAL_SUMS}{layer}/outputs"] = outputs[None]
        parts[f"{PARTIAL_SUMS}{layer}/tokens"] = torch.tensor([n_tokens])
    return parts


def summed_covariances(result: PassResult, plan: RowPass, n_examples: int) -> dict[str, Tensor]:
    """A and S of each layer, as `GradientRows.covariances`."""
    found = {}
    for layer in range(len(plan.layers)):
        inputs, outputs, tokens = (
            torch.stack([part[f"{layer}/{name}"].sum(0) for part in result.partials]).sum(0)
            for name in ("inputs", "outputs", "tokens")
        )
        found[f"{layer}/inputs"] = (inputs / tokens.clamp_min(1)).contiguous()
        found[f"{layer}/outputs"] = (outputs / n_examples).contiguous()
    return found
