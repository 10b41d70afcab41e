"""The pass over a split that takes its gradients: whose losses, which labels, what is summed beside the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.gradients.cotangents import target_cotangents
from twinlens.attribution.gradients.fisher import fisher_cotangents
from twinlens.attribution.gradients.layout import RowLayout
from twinlens.attribution.gradients.options import GradientOptions
from twinlens.attribution.gradients.row_forms import DENSE, RowForm
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.storage import Kept, bytes_per_row, form_of, kept_of
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.instance.over_layers import Losses
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch
from twinlens.attribution.targets import Targets
from twinlens.callbacks.attribute.explained_scores import explained_batch, explained_scores
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import ADDED_UP
from twinlens.models.footprint import Footprint
from twinlens.models.windows import in_parts, some_windows


@dataclass(frozen=True)
class Wanted:
    """One entry of the stage `gradients`.

    Attributes:
        options: of the method.
        split: whose rows.
        losses: see `Losses`.
        explained: whether gradients are of what the run explains, less its sign, instead of losses of labels.
    """

    options: GradientOptions
    split: str
    losses: Losses = "loss"
    explained: bool = False

    @property
    def form(self) -> RowForm:
        """How the rows are kept; those of what is explained, few and met by all others, as they are. The gradient of a
        token's share is an outer product: one triplet is all of it."""
        if self.explained:
            return DENSE
        return form_of(self.options.storage, 1 if self.per == "token" else self.options.storage_rank)

    @property
    def per(self) -> Literal["example", "token"]:
        """What has a row: tokens among the rows that are put forward alone, and never in the curvature."""
        of_tokens = self.options.per == "token" and not self.explained and self.losses == "loss"
        return "token" if of_tokens else "example"


def documents(session: Session, wanted: Wanted) -> bool:
    """Whether a row's loss is that of a whole text: for next-token data the train split's, as in training."""
    return not wanted.explained and session.readout.has_text_losses(wanted.split)


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
        self.whole_texts = documents(session, wanted)
        self.title = f"gradients of {wanted.split}"
        self.outputs = None if self.whole_texts else differentiated_outputs(session, wanted)

    def __call__(self, batch: Batch, windows: int) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, int]]]:
        """See `RowPass.of_batch`.

        Args:
            windows: how many windows of documents the model may read at a time. A text's gradient is the sum of its
                windows', whatever goes through the model together.
        """
        if not self.whole_texts or "window" not in batch:
            return self._of_sequences(batch)
        if windows * int(batch["window"][0]) >= batch["input_ids"].numel():
            return self._of_sequences(batch)
        found = [self._of_document(document, windows) for document in in_parts(batch, 1)]
        return [torch.cat(parts) for parts in zip(*(rows for rows, _ in found), strict=True)], _added(found)

    def _of_document(self, document: Batch, windows: int) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, int]]]:
        found = [self._of_sequences(part) for part in some_windows(document, windows)]
        parts = zip(*(rows for rows, _ in found), strict=True)
        of_tokens = self.plan.per == "token"
        return [torch.cat(part) if of_tokens else torch.stack(part).sum(0) for part in parts], _added(found)

    def _of_sequences(self, batch: Batch) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, int]]]:
        if self.outputs is not None:
            batch = explained_batch(self.outputs, batch)
        with recording(self.plan.layers) as tape:
            scores, cotangents = self._scores(batch)
            require_finite(scores.detach(), f"a score in the {self.title}", batch["index"])
            return self.plan.of_batch(tape, scores, cotangents, batch["attention_mask"])

    def needing(self, need: Need) -> Need:
        """What a batch of prompts needs whose completions are read as well."""
        asked = None if self.outputs is None else self.outputs.completions
        return need if asked is None else need.lengthened(asked.columns_of)

    def _scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.whole_texts:
            losses = self.model.token_losses(batch)[0].sum(1)
            return losses, torch.ones_like(losses)[None]
        assert self.outputs is not None
        asked = self.outputs.at(batch["index"].cpu()).to(batch["index"].device)
        scores = explained_scores(self.model, asked, batch)
        if self.losses == "expectation":
            return scores, fisher_cotangents(scores, asked.target, "expectation")
        return scores, target_cotangents(scores, asked)[None]


def _added(
    found: Sequence[tuple[list[Tensor], list[tuple[Tensor, Tensor, int]]]],
) -> list[tuple[Tensor, Tensor, int]]:
    """Sums of each layer over what went through the model one behind the other."""
    layers = zip(*(sums for _, sums in found), strict=True)
    return [(sum(a for a, _, _ in layer), sum(d for _, d, _ in layer), sum(n for *_, n in layer)) for layer in layers]


def differentiated_outputs(session: Session, wanted: Wanted) -> Targets:
    """Outputs whose losses are differentiated: what is explained, or a split's gold or predicted labels."""
    if wanted.explained:
        return session.targets("instance", wanted.split)
    predictions = session.predictions[wanted.split]
    predicted = predictions.column("prediction")
    if wanted.options.labels == "gold":
        labels = session.readout.labels(predictions.column("label"), predicted)
        return Targets(labels, fold=session.fold(wanted.split))
    return Targets(predicted)


def gradient_need(
    footprint: Footprint, read: int, plan: RowPass, rank: int, form: RowForm = DENSE, window: int | None = None
) -> Need:
    """A full forward with all that backward keeps, the rows with their parts, and what their form makes of these.

    Args:
        read: sequences of an example.
        rank: rows of an example.
        window: tokens of the windows in which longer texts are read, see `Session.window`.
    """
    encoded = 0 if form.exact else bytes_per_row(form, plan.layout) + 2 * 8 * max(plan.layout.widths)
    bytes_each = 2 * 4 * plan.layout.n_numbers + encoded

    def rows(columns: int) -> int:
        return bytes_each * (columns if plan.per == "token" else rank)

    def each(columns: int) -> int:
        scores = 3 * 4 * footprint.n_outputs * columns if footprint.n_outputs else 0
        return read * footprint.sequence(columns) + scores + rows(columns)

    return Need(each, each).by_windows(window, rows)


def kept_arrays(
    form: RowForm, layout: RowLayout, rank: int, rows: Sequence[Tensor], at: Sequence[int], split: str
) -> tuple[list[Tensor], Kept]:
    """The arrays of some rows as they are written, and how much of the rows they keep.

    Args:
        rank: gradients of a row.
        rows: [rows, rank · width] of each group of layers.
        at: their numbers.

    Raises:
        UserError: NaN or infinite numbers that the form cannot hold; float32 rows show them as scores.
    """
    parts = [part.detach().cpu() for part in rows]
    if form.exact:
        return parts, Kept(0.0, 0.0, 0)
    for part in parts:
        require_finite(part, f"A gradient of {split}", torch.tensor(at))
    single = [part.reshape(len(at) * rank, -1) for part in parts]
    arrays = form.encode(layout, single)
    return [array.reshape(len(at), -1) for array in arrays], kept_of(form, layout, single, arrays)


def partial_kept(kept: Kept) -> dict[str, Tensor]:
    """How much of a batch's rows is kept, as part of a shard."""
    return {f"{ADDED_UP}kept": torch.tensor([[kept.length, kept.whole, kept.zeroed]], dtype=torch.float64)}


def summed_kept(sums: Mapping[str, Tensor]) -> Kept:
    """The same of a whole split, from its shards' sums."""
    length, whole, zeroed = sums["kept"].tolist()
    return Kept(length, whole, round(zeroed))


def partial_sums(sums: Sequence[tuple[Tensor, Tensor, int]]) -> dict[str, Tensor]:
    """Sums of one batch, with an axis along which they are added up."""
    parts = {}
    for layer, (inputs, outputs, n_tokens) in enumerate(sums):
        parts[f"{ADDED_UP}{layer}/inputs"] = inputs[None]
        parts[f"{ADDED_UP}{layer}/outputs"] = outputs[None]
        parts[f"{ADDED_UP}{layer}/tokens"] = torch.tensor([n_tokens])
    return parts


def summed_covariances(sums: Mapping[str, Tensor], plan: RowPass, n_examples: int) -> dict[str, Tensor]:
    """A and S of each layer, as `GradientRows.covariances`, from a split's sums over its shards."""
    found = {}
    for layer in range(len(plan.layers)):
        inputs, outputs, tokens = (sums[f"{layer}/{name}"] for name in ("inputs", "outputs", "tokens"))
        found[f"{layer}/inputs"] = (inputs / tokens.clamp_min(1)).contiguous()
        found[f"{layer}/outputs"] = (outputs / n_examples).contiguous()
    return found
