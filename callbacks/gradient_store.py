"""The stages `projections` and `gradients`: a split's projected gradients, stored once for methods of their kind."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attribution.base import Batch, LinearLayer, UserError, require_finite
from attribution.gradients.blocks import UNPROJECTED, TwoSided
from attribution.gradients.fisher import fisher_cotangents
from attribution.gradients.options import GradientOptions, Per
from attribution.gradients.row_pass import RowPass
from attribution.gradients.rows import GradientRows
from attribution.gradients.tape import recording
from attribution.instance.head_gradients import logit_cotangents
from callbacks.files import is_first_process, write_json
from callbacks.fingerprints import with_imports
from callbacks.memory import Need, WithinMemory
from callbacks.passes import PassResult, index_shards, run_pass
from callbacks.row_files import MANIFEST, RowFiles, listed
from callbacks.session import Session
from callbacks.shards import PARTIAL_SUMS, read_shard
from callbacks.store import ASK_AGAIN_SECONDS, code_hash, fingerprint_of
from models.linear_layers import linear_layers

CODE = ("attribution.gradients.row_pass", "models.linear_layers", "callbacks.gradient_store", "callbacks.row_files")
PCA_ROWS = 1024
"""Train rows whose covariances choose a projection onto leading eigenvectors: many times its dimensions."""
ROWS_PER_PCA_SHARD = 64

Losses = Literal["loss", "expectation"]
"""Whose gradients: of an example's loss, or (classes − 1 rows) those that the GGN of its scores is made of."""


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


def gradient_inputs(session: Session, wanted: Wanted) -> dict[str, Any]:
    """Everything that stored gradients depend on."""
    options = asdict(replace(wanted.options, per=wanted.per))
    if wanted.losses == "expectation":
        del options["labels"]
    pca = wanted.options.projection.kind == "pca"
    return {
        "weights": session.weights,
        "examples": session.predictions[wanted.split].fingerprint,
        "documents": documents(session, wanted.split),
        "options": options,
        "losses": wanted.losses,
        "projections": fingerprint_of(projection_inputs(session, wanted.options)) if pca else None,
        "precision": session.trainers.precision,
        "code": code_hash((*with_imports(CODE), "models.module", "models.language_model", "callbacks.passes")),
    }


def projection_inputs(session: Session, options: GradientOptions) -> dict[str, Any]:
    """Everything that projections taken from the train split depend on; they are those of example gradients."""
    plain = replace(options, per="example", projection=replace(options.projection, kind="none"))
    return {**gradient_inputs(session, Wanted(plain, "train")), "pca": asdict(options.projection)}


def documents(session: Session, split: str) -> bool:
    """Whether a row's loss is that of a whole text: for next-token data the train split's, as in training."""
    return session.readout == "token" and split == "train"


def stored_rows(session: Session, wanted: Wanted) -> GradientRows:
    """The rows of a split, computed where the store does not have them.

    Raises:
        UserError: layers that do not exist, tokens of data with classes, or an expectation over a vocabulary.
    """
    refuse(session, wanted)
    layers = linear_layers(session.readable.lm, session.readable.head, wanted.options.params)
    projection = wanted.options.projection
    if projection.kind == "pca":
        projections = leading_projections(session, wanted.options, layers)
    else:
        projections = [projection.random(layer) for layer in layers]
    # a layer of which a projection keeps everything stays as it is
    plan = RowPass(layers, projections, [projection.sides(layer) for layer in layers], wanted.per)
    inputs = gradient_inputs(session, wanted)
    labels = session.labels(split=wanted.split, params=wanted.options.params, losses=wanted.losses)
    entry = session.store.get("gradients", inputs, lambda folder: _build(session, wanted, plan, inputs, folder), labels)
    return _open(entry.path, wanted, plan)


def refuse(session: Session, wanted: Wanted) -> None:
    """Refuse what no gradient can be taken of.

    Raises:
        UserError: see `stored_rows`.
    """
    if wanted.options.per == "token" and session.readout != "token":
        raise UserError(
            f"per=token names tokens of training texts, but data={session.data.name} have one loss per example; "
            "expected data that ask for the next token: choose data=fact_sentences or set per=example."
        )
    if wanted.losses == "expectation" and session.readout == "token":
        raise UserError(
            f"data={session.data.name} ask for a token of a vocabulary, over which no curvature takes its expectation; "
            "expected the texts' own tokens: use curvature=datainf, or curvature=ekfac with fisher=empirical."
        )


def n_rows_of(session: Session, wanted: Wanted) -> list[int]:
    """Where each example's rows begin, and behind the last one's end their number, [examples + 1]."""
    rows = session.data.splits[wanted.split]
    counts = [len(ids) for ids in rows["input_ids"][:]] if wanted.per == "token" else [1] * len(rows)
    return [0, *np.cumsum(counts).tolist()]


# -- the pass --------------------------------------------------------------------------------------------------------


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
        self.labels, self.fold = (None, None) if self.whole_texts else session_labels(session, wanted)

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
        return torch.where(gold < 0, predicted, gold) if session.readout == "token" else gold, of_class
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


def _build(session: Session, wanted: Wanted, plan: RowPass, inputs: dict[str, Any], folder: Path) -> None:
    starts = n_rows_of(session, wanted)
    rank = len(session.data.label_names) - 1 if wanted.losses == "expectation" else 1
    widths = [rank * width for width in plan.layout.widths]
    about = {
        "layers": list(plan.layout.names),
        "shapes": plan.layout.shapes,
        "rank": rank,
        "projection": asdict(wanted.options.projection),
        "fingerprint": fingerprint_of(inputs),
    }
    files = _room(folder, starts[-1], widths, about)
    gradients = BatchGradients(session, wanted, plan)

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        rows, sums = gradients(batch)
        index = batch["index"].tolist()
        files.write([row for item in index for row in range(starts[item], starts[item + 1])], rows)
        return {"index": batch["index"], **_partial_sums(sums)}

    title = f"{gradients.title} ({plan.layout.n_numbers} numbers a row)"
    cut = WithinMemory(title, compute, session.memory_budget, gradient_need(session, plan, rank))
    shards, loader = session.shards(wanted.split), session.loader(wanted.split)
    done = [number for number in range(len(shards)) if read_shard(folder / "shards", number) is not None]
    again = _batches_to_repair(files, shards, done, starts)
    model: Any = session.readable
    if again:
        repair = folder / "shards" / f"repair_{fingerprint_of({'batches': again})}"
        run_pass(f"{title}, damaged rows", model, cut, [[batch] for batch in again], loader, repair, session.trainers)
        if is_first_process():
            shutil.rmtree(repair)
    result = run_pass(title, model, cut, shards, loader, folder / "shards", session.trainers)
    if not is_first_process():
        return
    if not files.written().all():
        raise RuntimeError(f"{folder} lacks {int((~files.written()).sum())} rows")
    save_file(_covariances(result, plan, len(starts) - 1), folder / "covariances.safetensors")


def _room(folder: Path, n_rows: int, widths: Sequence[int], about: dict[str, Any]) -> RowFiles:
    """The arrays; those of a damaged entry, whose other rows are sound, go on here."""
    if is_first_process():
        damaged = folder.with_suffix("")
        if not (folder / MANIFEST).is_file() and (damaged / MANIFEST).is_file() and (damaged / "shards").is_dir():
            shutil.copytree(damaged / "shards", folder / "shards", dirs_exist_ok=True)
            for file in folder.glob("*.rows*"):
                file.unlink()
            RowFiles(damaged).adopt(folder)
        return RowFiles.create(folder, n_rows, widths, about)
    while not (folder / MANIFEST).is_file():
        time.sleep(ASK_AGAIN_SECONDS)
    return RowFiles(folder)


def _batches_to_repair(
    files: RowFiles, shards: Sequence[Sequence[Sequence[int]]], done: Sequence[int], starts: Sequence[int]
) -> list[list[int]]:
    """Batches of finished shards that have a damaged row; computed whole, so that rows come out equal bit by bit."""
    if not done:
        return []
    batches = [list(batch) for number in done for batch in shards[number]]
    rows = np.concatenate([np.arange(starts[item], starts[item + 1]) for batch in batches for item in batch])
    damaged = files.damaged(np.sort(rows))
    if damaged and is_first_process():
        print(f"{files.folder}: {listed(damaged)} damaged or missing, computed again", flush=True)
    bad = set(np.searchsorted(starts, damaged, side="right") - 1)
    return [batch for batch in batches if bad.intersection(batch)]


def _partial_sums(sums: Sequence[tuple[Tensor, Tensor, int]]) -> dict[str, Tensor]:
    """Sums of one batch, with an axis along which those of a shard's batches are put together."""
    parts = {}
    for layer, (inputs, outputs, n_tokens) in enumerate(sums):
        parts[f"{PARTIAL_SUMS}{layer}/inputs"] = inputs[None]
        parts[f"{PARTIAL_SUMS}{layer}/outputs"] = outputs[None]
        parts[f"{PARTIAL_SUMS}{layer}/tokens"] = torch.tensor([n_tokens])
    return parts


def _covariances(result: PassResult, plan: RowPass, n_examples: int) -> dict[str, Tensor]:
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


def _open(folder: Path, wanted: Wanted, plan: RowPass) -> GradientRows:
    files = RowFiles(folder)
    rank = int(files.manifest["rank"])
    stored = load_file(folder / "covariances.safetensors")
    sums = tuple((stored[f"{layer}/inputs"], stored[f"{layer}/outputs"]) for layer in range(len(plan.layers)))
    groups = tuple(group.view(-1, group.shape[1] // rank) for group in files.map())
    options = {"params": wanted.options.params, "labels": wanted.options.labels, "per": wanted.options.per}
    options |= {f"projection_{name}": value for name, value in asdict(wanted.options.projection).items()}
    return GradientRows(plan.layout, groups, rank, sums, None, options)


# -- projections from the data ---------------------------------------------------------------------------------------


def leading_projections(session: Session, options: GradientOptions, layers: Sequence[LinearLayer]) -> list[TwoSided]:
    """Projections onto the leading eigenvectors of up to 1 024 train rows, evenly spaced, for all splits."""
    inputs = projection_inputs(session, options)
    labels = session.labels(params=options.params)
    entry = session.store.get("projections", inputs, lambda folder: _choose(session, options, layers, folder), labels)
    stored = load_file(entry.path / "projections.safetensors")
    return [TwoSided(stored.get(f"{n}/inputs"), stored.get(f"{n}/outputs")) for n in range(len(layers))]


def _choose(session: Session, options: GradientOptions, layers: Sequence[LinearLayer], folder: Path) -> None:
    wanted = Wanted(replace(options, per="example"), "train")
    shapes = [(layer.d_out, layer.d_in + layer.has_bias) for layer in layers]
    plan = RowPass(layers, [UNPROJECTED] * len(layers), shapes, "nothing")
    gradients = BatchGradients(session, wanted, plan)

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        return {"index": batch["index"], **_partial_sums(gradients(batch)[1])}

    split = session.data.splits["train"]
    sample = np.unique(np.linspace(0, len(split) - 1, min(PCA_ROWS, len(split))).round().astype(int)).tolist()
    shards = [
        [[sample[place] for place in batch] for batch in shard]
        for shard in index_shards(len(sample), ROWS_PER_PCA_SHARD)
    ]
    cut = WithinMemory(
        f"projections of {options.params}", compute, session.memory_budget, gradient_need(session, plan, 0)
    )
    model: Any = session.readable
    result = run_pass(cut.name, model, cut, shards, session.loader("train"), folder / "shards", session.trainers)
    if not is_first_process():
        return
    sums = _covariances(result, plan, len(sample))
    kept = {}
    for number, layer in enumerate(layers):
        chosen = options.projection.leading(layer, sums[f"{number}/inputs"], sums[f"{number}/outputs"])
        sides = {"inputs": chosen.inputs, "outputs": chosen.outputs}
        kept |= {f"{number}/{name}": side.contiguous() for name, side in sides.items() if side is not None}
    save_file(kept, folder / "projections.safetensors")
    shutil.rmtree(folder / "shards")  # full covariances, the largest thing in the store
    write_json(folder / "rows.sampled.json", sample)
