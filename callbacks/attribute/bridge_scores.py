"""IA-Neurons: neuron scores composed of stored instance lists and the train split's stored neuron lists; no pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
from twinlens.callbacks.attribute.neuron_scores import tensors_of, write_neuron_scores
from twinlens.callbacks.attribute.score_files import (
    at_sites,
    read_best_instances,
    read_neuron_lists,
    write_description,
)
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process


def bridge_inputs(session: Session, method: InstanceNeurons, split: str) -> dict[str, Any]:
    """What composed scores depend on, beside method and code."""
    return {
        "instances": session.scores[method.source, split].name,
        "neurons": session.scores[method.neurons, "train"].name,
        "examples": session.predictions[split].fingerprint,
        "split": split,
    }


def build_bridge_scores(
    session: Session, name: str, method: InstanceNeurons, source_length: int, split: str, folder: Path
) -> None:
    """Compose a split's scores and write `<split>/` and `method.yaml`.

    Args:
        source_length: instances that the source keeps of each example.
    """
    if not is_first_process():
        return
    footprint = session.footprint
    shape = footprint.n_layers, footprint.n_neurons, footprint.query_width
    # the top-1 neuron of each train instance is all that is asked for
    train = read_neuron_lists(session.scores[method.neurons, "train"] / "train", 1, *shape)
    # without duplicates, neurons further down replace those that stand twice
    length = source_length if method.dedup else method.top_k
    top_index, top_score = read_best_instances(session.scores[method.source, split] / split, length)
    scores = at_sites(method.compose(top_index, top_score, train), footprint.n_neurons)
    rows = {"index": torch.arange(len(top_index)), **tensors_of(scores)}
    write_neuron_scores(folder, split, rows, session.predictions[split])
    write_description(folder, name, method.describe())
