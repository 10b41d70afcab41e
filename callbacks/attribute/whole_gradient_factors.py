"""The factors stage: (EK-)FAC of a model's linear layers over the train split, stored for all methods that read it.

Two entries: K-FAC's blocks in their eigenbasis from one pass of covariances, and for EK-FAC the eigenvalues from a
second pass in that basis. Each pass adds its batches up in a few segments, because a layer's covariances are larger
than what an example leaves elsewhere.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.factor_sums import FactorSums, ekfac_bases, kfac_bases
from twinlens.attribution.gradients.fisher import LayerBasis
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.protocols import Batch, LinearLayer
from twinlens.callbacks.attribute.whole_gradient_inputs import (
    cut_batch,
    gradient_need,
    layers_of,
    train_labels,
    train_losses,
)
from twinlens.callbacks.passes.predict_pass import run_shards
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import PARTIAL_SUMS, Progress, factor_segments, read_shard, shard_path
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.fingerprints import code_of

STAGE = "factors"

BASES, EIGENVALUES = "bases.safetensors", "eigenvalues.safetensors"


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
    require_room(session, layers, method)
    inputs = covariance_inputs(session, method)
    told = session.labels(method=f"{method.fisher} {method.params}")
    build = partial(_build_covariances, session, name, method, layers)
    entry = session.store.get(STAGE, inputs, build, told, f"{name}, covariances")
    bases = _read(entry.path / BASES, layers)
    if method.curvature == "kfac":
        return bases, entry.fingerprint
    inputs = {**inputs, "eigenvalues_in": entry.fingerprint}
    build = partial(_build_eigenvalues, session, name, method, layers, bases)
    entry = session.store.get(STAGE, inputs, build, told, f"{name}, eigenvalues")
    values = load_file(entry.path / EIGENVALUES)
    corrected = [
        LayerBasis(basis.outputs, basis.inputs, values[f"{layer.name}/eigenvalues"])
        for layer, basis in zip(layers, bases, strict=True)
    ]
    return corrected, entry.fingerprint


def covariance_inputs(session: Session, method: Any) -> dict[str, Any]:
    """What the covariances depend on; the examples' fingerprint covers weights, train split and precision."""
    return {
        "examples": session.predictions["train"].fingerprint,
        "params": method.params,
        "fisher": method.fisher,
        "labels": method.labels if method.fisher == "empirical" else None,
        "code": code_of(__name__),
    }


def factor_bytes(layers: list[LinearLayer], element_size: int = 8) -> int:
    """Both sides of all layers' covariances, or of their eigenvectors."""
    return element_size * sum((layer.d_in + layer.has_bias) ** 2 + layer.d_out**2 for layer in layers)


def require_room(session: Session, layers: list[LinearLayer], method: Any) -> None:
    """Refuse factors that take more than half of the memory budget.

    Raises:
        UserError: naming both.
    """
    needed = factor_bytes(layers)
    if needed > session.memory_budget // 2:
        raise UserError(
            f"curvature={method.curvature} with params={method.params} keeps factors of {bytes_in_words(needed)}, more "
            f"than half of memory_budget={bytes_in_words(session.memory_budget)}; expected them within it: raise the "
            "budget, name fewer layers in params or set projection=random."
        )


def _build_covariances(session: Session, name: str, method: Any, layers: list[LinearLayer], folder: Path) -> None:
    sums = _summed(session, f"{name}, covariances", method, FactorSums(layers, method.fisher), folder)
    if sums is None:
        return
    kept: dict[str, Tensor] = {}
    # products with float32 gradients need no more than float32
    bases = kfac_bases(layers, sums, len(session.data.splits["train"]), torch.float32)
    for layer, basis in zip(layers, bases, strict=True):
        kept[f"{layer.name}/outputs"] = basis.outputs
        kept[f"{layer.name}/inputs"] = basis.inputs
        kept[f"{layer.name}/eigenvalues"] = basis.eigenvalues
    _save(kept, folder, BASES)


def _build_eigenvalues(
    session: Session, name: str, method: Any, layers: list[LinearLayer], bases: list[LayerBasis], folder: Path
) -> None:
    sums = _summed(session, f"{name}, eigenvalues", method, FactorSums(layers, method.fisher, bases), folder)
    if sums is None:
        return
    corrected = ekfac_bases(layers, bases, sums, len(session.data.splits["train"]))
    values = {f"{layer.name}/eigenvalues": basis.eigenvalues for layer, basis in zip(layers, corrected, strict=True)}
    _save(values, folder, EIGENVALUES)


def _summed(session: Session, title: str, method: Any, factors: FactorSums, folder: Path) -> dict[str, Tensor] | None:
    """Sums over the train split, in the first process; None in all others."""
    model: Any = session.readable
    labels = train_labels(session, method)
    need = gradient_need(list(factors.layers), session.footprint, session.sequences)
    shards = factor_segments(session.data.splits["train"], session.eval_batch_size)
    progress = Progress(shards)

    def compute(batch: Batch) -> dict[str, Tensor]:
        for part in cut_batch(batch, need, session.memory_budget // 4):
            with recording(factors.layers) as tape:
                factors.add(tape, *train_losses(session, labels, part), part["attention_mask"])
        if not progress.ends(batch["index"]):
            return {}
        done = {f"{PARTIAL_SUMS}{key}": value for key, value in factors.sums.items()}
        factors.sums = {}
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


def _save(tensors: dict[str, Tensor], folder: Path, name: str) -> None:
    """Write the result of a build; the segments' files go, each of which is as large."""
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    shutil.rmtree(folder / "shards")


def _read(path: Path, layers: list[LinearLayer]) -> list[LayerBasis]:
    found = load_file(path)
    return [
        LayerBasis(*(found[f"{layer.name}/{part}"] for part in ("outputs", "inputs", "eigenvalues")))
        for layer in layers
    ]
