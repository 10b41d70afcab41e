"""Inputs of instance methods: a split's head inputs, those of every kept epoch, stored gradients, texts or lists."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn, tensor

from twinlens.attribution.bridge.neuron_lists import NeuronLists
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.instance.inputs import CheckpointInputs, HeadInputs, TextInputs
from twinlens.callbacks.attribute.method_graph import reads_of
from twinlens.callbacks.attribute.score_files import read_neuron_lists
from twinlens.callbacks.attribute.stored_gradients import Wanted, gradient_inputs, stored_rows
from twinlens.callbacks.passes.session import Epoch, Session
from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.data.tokenise import CHOICE, CHOICES
from twinlens.models.heads import head_weights


def instance_inputs(session: Session, method: Any, split: str) -> Any:
    """What the method asks for in `reads`, in row order."""
    reads = reads_of(method)
    if reads == "text":
        return TextInputs(texts_of(session, split))
    if reads == "neurons":
        return neuron_lists_of(session, method, split)
    if reads == "checkpoints":
        return checkpoint_inputs(session, method, split)
    if reads == "rows":
        return row_inputs(session, method, split)
    return head_inputs(session, method, split)


def inputs_read(session: Session, method: Any, split: str) -> Any:
    """What identifies these inputs, plain values; texts do not depend on the model."""
    reads = reads_of(method)
    if reads == "text":
        return hashlib.sha256(json.dumps(texts_of(session, split)).encode()).hexdigest()
    if reads == "neurons":
        return session.scores[method.source, split].name
    if reads == "rows":
        wanted = rows_wanted(method, split)
        return {"gradients": [fingerprint_of(gradient_inputs(session, one)) for one in wanted]}
    predicted: dict[str, Any] = {"examples": session.predictions[split].fingerprint}
    if reads == "checkpoints":
        predicted["epochs"] = [
            (session.epoch_examples[epoch.number, split].name, epoch.learning_rate) for epoch in session.epochs
        ]
    return predicted


def head_inputs(session: Session, method: Any, split: str) -> HeadInputs:
    """Cached head inputs of a split with the labels that the method asks for."""
    labels, fold = labels_of(session, method, split)
    return HeadInputs(session.predictions[split].features, labels, session.classifier.head, fold)


def row_inputs(session: Session, method: Any, split: str) -> GradientRows:
    """Stored rows of projected gradients, of the train split with those that the method's curvature is made of."""
    rows, *fisher = [stored_rows(session, wanted) for wanted in rows_wanted(method, split)]
    return replace(rows, fisher=fisher[0]) if fisher else rows


def rows_wanted(method: Any, split: str) -> list[Wanted]:
    """The method's rows of a split, then those of its curvature where they are others."""
    options = method.gradients
    wanted = [Wanted(options, split)]
    curvature = getattr(method, "curvature", "identity")
    if split != "train" or curvature == "identity":
        return wanted
    if curvature == "ggn" or (curvature in ("kfac", "ekfac") and method.fisher == "expectation"):
        return [*wanted, Wanted(options, split, "expectation")]
    return [*wanted, Wanted(replace(options, per="example"), split)] if options.per == "token" else wanted


def checkpoint_inputs(session: Session, method: Any, split: str) -> CheckpointInputs:
    """Head inputs under every kept epoch's weights, each with the learning rate of its last step.

    Predicted labels are those of the explained model.
    """
    labels, fold = labels_of(session, method, split)
    steps = []
    for epoch in session.epochs:
        features = load_file(session.epoch_examples[epoch.number, split] / "features.safetensors")["features"]
        steps.append((HeadInputs(features, labels, _head_at(session, epoch), fold), epoch.learning_rate))
    return CheckpointInputs(tuple(steps))


def texts_of(session: Session, split: str) -> list[str]:
    """The columns that the template shows, in its order, one text per example; a question's choices are all in it.

    The template's own words, the same in every example, are left out; what `data.max_length` cuts off is not.
    """
    columns = [CHOICES if column == CHOICE else column for column in session.data.resolve_template().columns]
    shown = session.data.splits[split].select_columns(columns)
    return ["\n".join(_as_text(row[column]) for column in columns) for row in shown]


def neuron_lists_of(session: Session, method: Any, split: str) -> NeuronLists:
    """The stored lists of the method's source, as long as the method reads them on either side."""
    footprint = session.footprint
    length = max(method.train_list, method.test_list) if split == "train" else method.test_list
    shape = footprint.n_layers, footprint.n_neurons, footprint.query_width
    return read_neuron_lists(session.scores[method.source, split] / split, length, *shape)


def labels_of(session: Session, method: Any, split: str) -> tuple[Tensor, Tensor | None]:
    """Labels of the method's loss and the split's fold; a method without a loss has the predictions.

    In a folded split gold labels are folded classes, so predicted ones are folded too.
    """
    predictions = session.predictions[split]
    fold = session.data.folds.get(split)
    of_class = None if fold is None else tensor(fold.of_class)
    if getattr(method, "labels", "predicted") == "gold":
        return predictions.column("label"), of_class
    predicted = predictions.column("prediction")
    return predicted if of_class is None else of_class[predicted], of_class


def _head_at(session: Session, epoch: Epoch) -> nn.Module:
    head = copy.deepcopy(session.classifier.head)
    head.load_state_dict(head_weights(epoch.folder))
    return head


def _as_text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
