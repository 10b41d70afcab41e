"""The stages `projections` and `gradients`: a split's projected gradients, stored once for methods of their kind."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import UNPROJECTED, TwoSided
from twinlens.attribution.gradients.layout import RowLayout
from twinlens.attribution.gradients.options import GradientOptions
from twinlens.attribution.gradients.row_forms import DENSE, RowForm
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.storage import bytes_per_row
from twinlens.attribution.protocols import Batch, LinearLayer
from twinlens.callbacks.attribute.stored_gradient_pass import (
    BatchGradients,
    Wanted,
    documents,
    gradient_need,
    kept_arrays,
    partial_kept,
    partial_sums,
    summed_covariances,
    summed_kept,
)
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_shards
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import read_shard, row_shards, shard_sums
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.files import write_json
from twinlens.callbacks.store.fingerprints import code_of, fingerprint_of
from twinlens.callbacks.store.row_files import MANIFEST, RowFiles, listed
from twinlens.callbacks.store.store import ASK_AGAIN_SECONDS, Finish
from twinlens.models.linear_layers import linear_layers

KEPT = "kept.json"
"""File of an entry that says how much of its rows their form keeps."""
PCA_ROWS = 1024
"""Train rows whose covariances choose a projection onto leading eigenvectors: many times its dimensions."""


def gradient_inputs(session: Session, wanted: Wanted) -> dict[str, Any]:
    """Everything that stored gradients depend on."""
    options = asdict(replace(wanted.options, per=wanted.per))
    options = {name: value for name, value in options.items() if not name.startswith("storage")}
    options |= wanted.form.identity()
    if wanted.losses == "expectation" or wanted.explained:
        del options["labels"]
    pca = wanted.options.projection.kind == "pca"
    return {
        "weights": session.weights,
        "examples": session.predictions[wanted.split].fingerprint,
        "documents": documents(session, wanted),
        "options": options,
        "losses": wanted.losses,
        **({"explain": session.explain.instance.identity} if wanted.explained else {}),
        "projections": fingerprint_of(projection_inputs(session, wanted.options)) if pca else None,
        "precision": session.trainers.numbers,
        "code": code_of(__name__, RowFiles),
    }


def projection_inputs(session: Session, options: GradientOptions) -> dict[str, Any]:
    """Everything that projections taken from the train split depend on; they are those of example gradients."""
    unprojected = replace(options.projection, kind="none")
    plain = replace(options, per="example", projection=unprojected, storage="dense")
    return {**gradient_inputs(session, Wanted(plain, "train")), "pca": asdict(options.projection)}


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
    if wanted.options.per == "token" and not session.readout.of_vocabulary:
        raise UserError(
            f"per=token names tokens of training texts, but data={session.data.name} have one loss per example; "
            "expected data that ask for the next token: choose data=fact_sentences or set per=example."
        )
    if wanted.losses == "expectation" and session.readout.of_vocabulary:
        raise UserError(
            f"data={session.data.name} ask for a token of a vocabulary, over which no curvature takes its expectation; "
            "expected the texts' own tokens: use curvature=datainf, or curvature=ekfac with fisher=empirical."
        )


def n_rows_of(session: Session, wanted: Wanted) -> list[int]:
    """Where each example's rows begin, and behind the last one's end their number, [examples + 1]."""
    rows = session.data.splits[wanted.split]
    counts = [len(ids) for ids in rows["input_ids"][:]] if wanted.per == "token" else [1] * len(rows)
    return [0, *np.cumsum(counts).tolist()]


def _build(session: Session, wanted: Wanted, plan: RowPass, inputs: dict[str, Any], folder: Path) -> Finish:
    starts = n_rows_of(session, wanted)
    rank = len(session.data.label_names) - 1 if wanted.losses == "expectation" else 1
    form = wanted.form
    about = {
        "layers": list(plan.layout.names),
        "shapes": plan.layout.shapes,
        "rank": rank,
        "projection": asdict(wanted.options.projection),
        **form.identity(),
        "fingerprint": fingerprint_of(inputs),
    }
    files = _room(folder, starts[-1], rank, plan.layout, form, about)
    gradients = BatchGradients(session, wanted, plan)
    window = session.window(wanted.split) if gradients.whole_texts else None
    need = gradients.needing(gradient_need(session.footprint, session.sequences.read, plan, rank, form, window))

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        windows = need.windows(len(batch["index"]), batch["input_ids"].shape[-1], budget)
        rows, sums = gradients(batch, windows)
        index = batch["index"].tolist()
        at = [row for item in index for row in range(starts[item], starts[item + 1])]
        arrays, kept = kept_arrays(form, plan.layout, rank, rows, at, wanted.split)
        files.write(at, arrays)
        return {"index": batch["index"], **partial_sums(sums), **partial_kept(kept)}

    title = f"{gradients.title} ({plan.layout.n_numbers} numbers a row)"
    cut = WithinMemory(title, compute, session.memory_budget, need)
    shards, loader = session.shards(wanted.split), session.loader(wanted.split)
    done = [number for number in range(len(shards)) if read_shard(folder / "shards", number) is not None]
    again = _batches_to_repair(files, shards, done, starts)
    model: Any = session.readable
    if again:
        repair = folder / "shards" / f"repair_{fingerprint_of({'batches': again})}"
        run_shards(f"{title}, damaged rows", model, cut, [[batch] for batch in again], loader, repair, session.trainers)
        if is_first_process():
            shutil.rmtree(repair)
    run_shards(title, model, cut, shards, loader, folder / "shards", session.trainers)

    def finish() -> None:
        sums = shard_sums(folder / "shards", len(shards))
        if not files.written().all():
            raise RuntimeError(f"{folder} lacks {int((~files.written()).sum())} rows")
        kept = summed_kept(sums)
        lost = f", {kept.zeroed} numbers became 0" if kept.zeroed else ""
        if not form.exact:
            print(f"{title}: storage={form.name} keeps {kept.share:.4f} of their squared length{lost}", flush=True)
        write_json(folder / KEPT, {"kept_share": kept.share, "zeroed": kept.zeroed})
        save_file(summed_covariances(sums, plan, len(starts) - 1), folder / "covariances.safetensors")

    return finish


def _room(folder: Path, n_rows: int, rank: int, layout: RowLayout, form: RowForm, about: dict[str, Any]) -> RowFiles:
    """The arrays; those of a damaged entry, whose other rows are sound, go on here."""
    if is_first_process():
        damaged = folder.with_suffix("")
        if not (folder / MANIFEST).is_file() and (damaged / MANIFEST).is_file() and (damaged / "shards").is_dir():
            shutil.copytree(damaged / "shards", folder / "shards", dirs_exist_ok=True)
            for file in folder.glob("*.rows*"):
                file.unlink()
            RowFiles(damaged).adopt(folder)
        widths, dtypes = zip(*form.arrays(layout), strict=True)
        names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        return RowFiles.create(folder, n_rows, [rank * width for width in widths], about, names)
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


def _open(folder: Path, wanted: Wanted, plan: RowPass) -> GradientRows:
    files = RowFiles(folder)
    rank = int(files.manifest["rank"])
    stored = load_file(folder / "covariances.safetensors")
    sums = tuple((stored[f"{layer}/inputs"], stored[f"{layer}/outputs"]) for layer in range(len(plan.layers)))
    groups = tuple(group.view(-1, group.shape[1] // rank) for group in files.map())
    options: dict[str, Any] = {
        "params": wanted.options.params,
        "labels": wanted.options.labels,
        "per": wanted.options.per,
    }
    options |= {f"projection_{name}": value for name, value in asdict(wanted.options.projection).items()}
    options |= wanted.form.identity() | {"storage_bytes_per_row": rank * bytes_per_row(wanted.form, plan.layout)}
    if not wanted.form.exact:
        kept = json.loads((folder / KEPT).read_text(encoding="utf-8"))
        options |= {f"storage_{name}": value for name, value in kept.items()}
    return GradientRows(plan.layout, groups, rank, sums, None, options, wanted.form)


# -- projections from the data ---------------------------------------------------------------------------------------


def leading_projections(session: Session, options: GradientOptions, layers: Sequence[LinearLayer]) -> list[TwoSided]:
    """Projections onto the leading eigenvectors of up to 1 024 train rows, evenly spaced, for all splits."""
    inputs = projection_inputs(session, options)
    labels = session.labels(params=options.params)
    entry = session.store.get("projections", inputs, lambda folder: _choose(session, options, layers, folder), labels)
    stored = load_file(entry.path / "projections.safetensors")
    return [TwoSided(stored.get(f"{n}/inputs"), stored.get(f"{n}/outputs")) for n in range(len(layers))]


def _choose(session: Session, options: GradientOptions, layers: Sequence[LinearLayer], folder: Path) -> Finish:
    wanted = Wanted(replace(options, per="example"), "train")
    shapes = [(layer.d_out, layer.d_in + layer.has_bias) for layer in layers]
    plan = RowPass(layers, [UNPROJECTED] * len(layers), shapes, "nothing")
    gradients = BatchGradients(session, wanted, plan)
    window = session.window("train") if gradients.whole_texts else None
    need = gradient_need(session.footprint, session.sequences.read, plan, 0, DENSE, window)

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        windows = need.windows(len(batch["index"]), batch["input_ids"].shape[-1], budget)
        return {"index": batch["index"], **partial_sums(gradients(batch, windows)[1])}

    split = session.data.splits["train"]
    sample = np.unique(np.linspace(0, len(split) - 1, min(PCA_ROWS, len(split))).round().astype(int)).tolist()
    shards = [[[sample[place] for place in batch] for batch in shard] for shard in row_shards(len(sample))]
    cut = WithinMemory(f"projections of {options.params}", compute, session.memory_budget, need)
    model: Any = session.readable
    run_shards(cut.name, model, cut, shards, session.loader("train"), folder / "shards", session.trainers)

    def finish() -> None:
        sums = summed_covariances(shard_sums(folder / "shards", len(shards)), plan, len(sample))
        kept: dict[str, Tensor] = {}
        for number, layer in enumerate(layers):
            chosen = options.projection.leading(layer, sums[f"{number}/inputs"], sums[f"{number}/outputs"])
            sides = {"inputs": chosen.inputs, "outputs": chosen.outputs}
            kept |= {f"{number}/{name}": side.contiguous() for name, side in sides.items() if side is not None}
        save_file(kept, folder / "projections.safetensors")
        shutil.rmtree(folder / "shards")  # full covariances, the largest thing in the store
        write_json(folder / "rows.sampled.json", sample)

    return finish
