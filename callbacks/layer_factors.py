"""The factors stage: (EK-)FAC of a model's linear layers over the train split, stored for all methods that read it.

Two entries: K-FAC's blocks in their eigenbasis from one pass of covariances, and for EK-FAC the eigenvalues from a
second pass in that basis. Each pass adds its batches up in a few segments, because a layer's covariances are larger
than what an example leaves elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attribution.base import Batch, LinearLayer, UserError
from attribution.gradients.blocks import UNPROJECTED, project_sides
from attribution.gradients.fisher import covariances, eigenbasis, fisher_cotangents, squares, token_mask
from attribution.gradients.tape import recording
from attribution.instance.kronecker import LayerBasis
from attribution.sizes import bytes_in_words
from callbacks.files import is_first_process
from callbacks.fingerprints import with_imports
from callbacks.layer_inputs import checked_labels, cut_batch, gradient_need, layers_of
from callbacks.passes import run_shards
from callbacks.segments import Progress, segments_of
from callbacks.session import Session
from callbacks.shards import PARTIAL_SUMS, read_shard, shard_path
from callbacks.store import code_hash

STAGE = "factors"
CODE = ("attribution.gradients.fisher", "callbacks.layer_factors", "callbacks.layer_inputs", "callbacks.segments")
SEGMENTS = 8
"""Each leaves a file as large as the covariances of all layers."""

Add = Callable[[Tensor, int, Tensor, Tensor, bool], dict[str, Tensor]]
"""(attention mask, layer, a, δ, whether these are the first cotangents of the forward) → sums of a part of a batch."""


def stored_factors(session: Session, name: str, method: Any) -> tuple[list[LayerBasis], str]:
    """The layers' Fisher blocks, computed or read from the store, and what identifies them.

    Args:
        session: of the run.
        name: of the method, for messages.
        method: with `curvature` kfac or ekfac, `fisher`, `labels`, `params`.

    Raises:
        UserError: factors beyond the memory budget, labels that no loss is of, an expectation over a vocabulary.
    """
    layers = layers_of(session, method.params)
    _require_room(session, layers, method)
    inputs = covariance_inputs(session, method)
    told = session.labels(method=f"{method.fisher} {method.params}")
    entry = session.store.get(
        STAGE, inputs, lambda folder: _build_covariances(session, name, method, layers, folder), told
    )
    print(f"{name}, covariances: {'read from the store' if entry.reused else 'computed'}", flush=True)
    bases = _read(entry.path / "bases.safetensors", layers)
    if method.curvature == "kfac":
        return bases, entry.fingerprint
    inputs = {**inputs, "eigenvalues_in": entry.fingerprint}
    entry = session.store.get(
        STAGE, inputs, lambda folder: _build_eigenvalues(session, name, method, layers, bases, folder), told
    )
    print(f"{name}, eigenvalues: {'read from the store' if entry.reused else 'computed'}", flush=True)
    values = load_file(entry.path / "eigenvalues.safetensors")
    corrected = [LayerBasis(b.outputs, b.inputs, values[layer.name]) for b, layer in zip(bases, layers, strict=True)]
    return corrected, entry.fingerprint


def covariance_inputs(session: Session, method: Any) -> dict[str, Any]:
    """What the covariances depend on; the examples' fingerprint covers weights, train split and precision."""
    return {
        "examples": session.predictions["train"].fingerprint,
        "params": method.params,
        "fisher": method.fisher,
        "labels": method.labels if method.fisher == "empirical" else None,
        "code": code_hash(with_imports(CODE)),
    }


def factor_bytes(layers: list[LinearLayer], element_size: int = 8) -> int:
    """Both sides of all layers' covariances, or of their eigenvectors."""
    return element_size * sum((layer.d_in + layer.has_bias) ** 2 + layer.d_out**2 for layer in layers)


def _require_room(session: Session, layers: list[LinearLayer], method: Any) -> None:
    needed = factor_bytes(layers)
    if needed > session.memory_budget // 2:
        raise UserError(
            f"curvature={method.curvature} with params={method.params} keeps factors of {bytes_in_words(needed)}, more "
            f"than half of memory_budget={bytes_in_words(session.memory_budget)}; expected them within it: raise the "
            "budget, name fewer layers in params or set projection=random."
        )


def _build_covariances(session: Session, name: str, method: Any, layers: list[LinearLayer], folder: Path) -> None:
    def add(mask: Tensor, number: int, a: Tensor, d: Tensor, first: bool) -> dict[str, Tensor]:
        valid = token_mask(a, mask)
        inputs, outputs = covariances(a, d, valid)
        key = f"{layers[number].name}/"
        if not first:  # the inputs are those of the forward, whatever the cotangents
            return {f"{key}outputs": outputs}
        count = torch.tensor(a.shape[:2].numel()) if valid is None else valid.sum()
        return {f"{key}inputs": inputs, f"{key}outputs": outputs, f"{key}tokens": count.double()}

    sums = _summed(session, f"{name}, covariances", method, layers, add, folder)
    if sums is None:
        return
    n_train = len(session.data.splits["train"])
    kept: dict[str, Tensor] = {}
    for layer in layers:
        outputs, inputs = sums.pop(f"{layer.name}/outputs", None), sums.pop(f"{layer.name}/inputs", None)
        if outputs is None or inputs is None:
            raise UserError(
                f"the layer {layer.name} takes no part in the model's scores, so that it has no curvature; expected "
                "layers that do: leave it out of the method's params."
            )
        basis = eigenbasis(inputs / sums.pop(f"{layer.name}/tokens"), outputs / n_train)
        # decomposed in float64; products with float32 gradients need no more than that
        kept[f"{layer.name}/outputs"] = basis.outputs.float()
        kept[f"{layer.name}/inputs"] = basis.inputs.float()
        kept[f"{layer.name}/eigenvalues"] = basis.eigenvalues
    _save(kept, folder / "bases.safetensors")


def _build_eigenvalues(
    session: Session, name: str, method: Any, layers: list[LinearLayer], bases: list[LayerBasis], folder: Path
) -> None:
    there: dict[int, LayerBasis] = {}  # one layer's basis after the other on the device of the model

    def add(mask: Tensor, number: int, a: Tensor, d: Tensor, first: bool) -> dict[str, Tensor]:
        if number not in there:
            basis = bases[number]
            there[number] = LayerBasis(
                *(part.to(a.device) for part in (basis.outputs, basis.inputs, basis.eigenvalues))
            )
        return {layers[number].name: squares(there[number], a, d, len(mask))}

    sums = _summed(session, f"{name}, eigenvalues", method, layers, add, folder)
    if sums is not None:
        n_train = len(session.data.splits["train"])
        _save({key: value / n_train for key, value in sums.items()}, folder / "eigenvalues.safetensors")


def _summed(
    session: Session, title: str, method: Any, layers: list[LinearLayer], add: Add, folder: Path
) -> dict[str, Tensor] | None:
    """Sums over the train split of what `add` gives, in the first process; None in all others."""
    model: Any = session.readable
    labels, _ = checked_labels(session, method, "train")
    need = gradient_need(layers, session.footprint, session.sequences)
    shards = segments_of(session.data.splits["train"], session.eval_batch_size, 1, SEGMENTS)
    progress, sums = Progress(shards), dict[str, Tensor]()

    def part(batch: Batch) -> None:
        mask = batch["attention_mask"]
        with recording(layers) as tape:
            scores = model(batch)
            rows = fisher_cotangents(scores, labels[batch["index"].cpu()].to(scores.device), method.fisher)
            for row, cotangents in enumerate(rows):

                def consume(number: int, inputs: Tensor, deltas: Tensor, first: bool = row == 0) -> None:
                    with torch.autocast(inputs.device.type, enabled=False):
                        a, d = project_sides(inputs, deltas, layers[number].has_bias, UNPROJECTED)
                        for key, value in add(mask, number, a, d, first).items():
                            sums[key] = sums[key].add_(value) if key in sums else value

                tape.gradients(scores, cotangents, consume, more=row + 1 < len(rows))

    def compute(batch: Batch) -> dict[str, Tensor]:
        for piece in cut_batch(batch, need, session.memory_budget // 4):
            part(piece)
        if not progress.ends(batch["index"]):
            return {}
        done = {f"{PARTIAL_SUMS}{key}": value for key, value in sums.items()}
        sums.clear()
        return done

    parts = folder / "shards"
    run_shards(title, model, compute, shards, session.loader("train"), parts, session.trainers)
    if not is_first_process():
        return None
    total: dict[str, Tensor] = {}
    for number in range(len(shards)):  # one file at a time: together they may be larger than the memory
        found = read_shard(parts, number)
        if found is None:
            raise FileNotFoundError(shard_path(parts, number))
        for key, value in found.items():
            key = key.removeprefix(PARTIAL_SUMS)
            total[key] = total[key].add_(value) if key in total else value
    return total


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Write the result of a build; the segments' files go, each of which is as large."""
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    shutil.rmtree(path.parent / "shards")


def _read(path: Path, layers: list[LinearLayer]) -> list[LayerBasis]:
    found = load_file(path)
    return [
        LayerBasis(*(found[f"{layer.name}/{part}"] for part in ("outputs", "inputs", "eigenvalues")))
        for layer in layers
    ]
