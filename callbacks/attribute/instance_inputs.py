"""Forms of a split that instance methods read whole: head inputs, those of kept epochs, texts, neuron lists."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

from safetensors.torch import load_file
from torch import nn

from twinlens.attribution.bridge.neuron_lists import NeuronLists
from twinlens.attribution.instance.inputs import CheckpointInputs, HeadInputs, TextInputs
from twinlens.attribution.targets import Targets
from twinlens.callbacks.attribute.completion_states import completion_states
from twinlens.callbacks.attribute.instance_scores import Side, Streamed
from twinlens.callbacks.attribute.reads import Planned
from twinlens.callbacks.attribute.score_files import read_neuron_lists
from twinlens.callbacks.attribute.text_list_files import read_text_lists
from twinlens.callbacks.attribute.text_lists import reads_tokens, tokens_that_count
from twinlens.callbacks.passes.session import Epoch, Session
from twinlens.data.tokenise import CHOICE, CHOICES
from twinlens.models.encoders import named_in_head, reads_first
from twinlens.models.heads import head_weights


class HeadReads(Streamed):
    """Cached head inputs with the labels that the method asks for, or with what is explained: `HeadInputs`.

    Of a language model, whose head reads every token, means over tokens, for methods that compare them.
    """

    serves_groups = True
    counts_room = True

    def load(self, split: str, side: Side) -> HeadInputs:
        """The split's."""
        session, asked = self.session, outputs_of(self.session, self.method, split, side)
        if session.readout.of_vocabulary:
            return HeadInputs(completion_states(session, split), asked.target, session.readable.head)
        features = session.predictions[split].features
        return HeadInputs(features, asked.target, session.classifier.head, asked.fold, asked.against)

    def identify(self, split: str, side: Side) -> dict[str, Any]:
        """The split's predictions."""
        return {"examples": self.session.predictions[split].fingerprint}


class CheckpointReads(Streamed):
    """Head inputs under every kept epoch's weights, each with the learning rate of its last step: `CheckpointInputs`.

    Predicted labels, and what is explained, are those of the explained model.
    """

    needs_epochs = True

    def load(self, split: str, side: Side) -> CheckpointInputs:
        """The split's."""
        session, asked = self.session, outputs_of(self.session, self.method, split, side)
        steps = []
        for epoch in session.epochs:
            features = load_file(session.epoch_examples[epoch.number, split] / "features.safetensors")["features"]
            inputs = HeadInputs(features, asked.target, _head_at(session, epoch), asked.fold, asked.against)
            steps.append((inputs, epoch.learning_rate))
        return CheckpointInputs(tuple(steps))

    def identify(self, split: str, side: Side) -> dict[str, Any]:
        """The predictions of the explained model and of every epoch's."""
        session = self.session
        epochs = [(session.epoch_examples[epoch.number, split].name, epoch.learning_rate) for epoch in session.epochs]
        return {"examples": session.predictions[split].fingerprint, "epochs": epochs}

    def held(self, plan: Planned) -> int:
        """Those of all epochs."""
        return super().held(plan) * plan.n_epochs


class TextReads(Streamed):
    """The columns that the template shows, in its order, one text per example: `TextInputs`.

    A question's choices are all in it. The template's own words, the same in every example, are left out; what
    `data.max_length` cuts off is not.
    """

    serves_groups = True

    def load(self, split: str, side: Side) -> TextInputs:
        """The split's."""
        return TextInputs(self._texts(split))

    def identify(self, split: str, side: Side) -> str:
        """The texts themselves, which do not depend on the model."""
        return hashlib.sha256(json.dumps(self._texts(split)).encode()).hexdigest()

    def _texts(self, split: str) -> list[str]:
        data = self.session.data
        columns = [CHOICES if column == CHOICE else column for column in data.resolve_template().columns]
        shown = data.splits[split].select_columns(columns)
        return ["\n".join(_as_text(row[column]) for column in columns) for row in shown]


class NeuronListReads(Streamed):
    """The stored lists of the method's source, as long as the method reads them on either side: `NeuronLists`."""

    def load(self, split: str, side: Side) -> NeuronLists:
        """The split's."""
        footprint, method = self.session.footprint, self.method
        length = max(method.train_list, method.test_list) if side == "train" else method.test_list
        shape = footprint.n_layers, footprint.n_neurons, footprint.query_width
        if side == "train" and reads_tokens(self.session, self.methods, method.source, split):
            return read_text_lists(self.session.scores[method.source, split] / split, method.train_list, *shape)
        return read_neuron_lists(self.session.scores[method.source, split] / split, length, *shape)

    def identify(self, split: str, side: Side) -> str:
        """The source's scores."""
        return self.session.scores[self.method.source, split].name

    def held(self, plan: Planned) -> int:
        """Layer, unit and score of every entry."""
        n_train, n_test = len(plan.lengths["train"]), len(plan.lengths[self.session.split])
        method = self.method
        if reads_tokens(self.session, self.methods, method.source, "train"):
            n_tokens = sum(tokens_that_count(self.session.data.splits["train"]))
            return 12 * (n_tokens * method.train_list + n_test * method.test_list)
        return 12 * (n_train * max(method.train_list, method.test_list) + n_test * method.test_list)


def outputs_of(session: Session, method: Any, split: str, side: Side) -> Targets:
    """Outputs whose log-probability is differentiated: of train rows those of the method's loss, of tests what the run
    explains. A method without a loss, or that explains nothing, has the predictions.

    In a folded split gold labels are folded classes.
    """
    if side == "test" and method.explains is not None:
        return session.targets(method.explains, split)
    predictions = session.predictions[split]
    if side == "train" and getattr(method, "labels", "predicted") == "gold":
        labels = session.readout.labels(predictions.column("label"), predictions.column("prediction"))
        return Targets(labels, fold=session.fold(split))
    return Targets(predictions.column("prediction"))


def _head_at(session: Session, epoch: Epoch) -> nn.Module:
    head = copy.deepcopy(session.classifier.head)
    lm = session.classifier.lm
    head.load_state_dict(head_weights(epoch.folder, named_in_head(lm) if reads_first(lm) else None))
    return head


def _as_text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
