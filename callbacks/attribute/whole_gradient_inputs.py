"""Inputs of methods over linear layers: the layers, the labels, memory of a forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.engine_sizes import Sequences
from twinlens.attribution.instance.head_gradients import check_labels
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch, LinearLayer
from twinlens.callbacks.attribute.instance_inputs import outputs_of
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.models.footprint import Footprint
from twinlens.models.linear_layers import coverage, linear_layers


def layers_of(session: Session, params: str) -> list[LinearLayer]:
    """The layers that `params` names, by their names in the language model with its readout.

    Raises:
        UserError: a pattern without a layer.
    """
    model: Any = session.readable
    return linear_layers(model.lm, model.head, params)


def covered_by(session: Session, params: str) -> dict[str, Any]:
    """What `params` covers of the model and leaves out, for method.yaml; told on stdout as well."""
    model: Any = session.readable
    found = coverage(model.lm, model.head, layers_of(session, params))
    if is_first_process():
        print(found.told(), flush=True)
    return found.described()


def require_layers(method: OverLayers, architecture: Callable[[], Any]) -> None:
    """Refuse layers that the model does not have.

    Args:
        architecture: gives the model without values.

    Raises:
        UserError: a pattern without a layer.
    """
    lm = architecture()
    linear_layers(lm, lm.score if hasattr(lm, "score") else lm.get_output_embeddings(), method.gradients.params)


def train_losses(session: Session, labels: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """What a train batch's losses are differentiated at: logits and labels, or summed losses of whole texts and None.

    Args:
        labels: of the split; None where a row's loss is that of its text, as in training.
    """
    model: Any = session.readable
    if labels is None:
        return model.token_losses(batch)[0].sum(1), None
    logits = model(batch)
    return logits, labels[batch["index"].cpu()].to(logits.device)


def train_labels(session: Session, method: Any) -> Tensor | None:
    """Labels of the train split's losses, [examples]; None where these are of whole texts, as in training.

    Raises:
        UserError: rows without a label, or folded labels.
    """
    if session.readout.has_text_losses("train"):
        return None
    asked = outputs_of(session, method, "train", "train")
    check_labels(asked.target, asked.fold, session.n_outputs, torch.arange(len(asked)), "train")
    return asked.target


def gradient_need(layers: list[LinearLayer], footprint: Footprint, sequences: Sequences) -> Need:
    """A forward with all that backward keeps, the recorded inputs, and one layer's inputs and gradients once more."""
    kept = sum(layer.d_in for layer in layers)
    widest = max(layer.d_in + layer.d_out for layer in layers)

    def each(columns: int) -> int:
        scores = 3 * 4 * footprint.n_outputs * columns if footprint.n_outputs else 0  # of every token, for texts
        return sequences.read * (footprint.sequence(columns) + 4 * columns * (kept + 3 * widest) + scores)

    return Need(each, each)


def cut_batch(batch: Batch, need: Need, budget: int) -> Iterator[Batch]:
    """The batch in parts that keep to a budget, one example at the least."""
    n, start = len(batch["index"]), 0
    while start < n:
        count = need.examples(n - start, batch["input_ids"].shape[-1], budget)
        yield {name: tensor[start : start + count] for name, tensor in batch.items()}
        start += count
