"""Session of a run: everything that all its stages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from twinlens.attribution.engine_sizes import EngineSizes, Sequences
from twinlens.attribution.method import Lens
from twinlens.attribution.readouts import READOUTS, ReadoutKind
from twinlens.attribution.targets import Targets
from twinlens.callbacks.passes.explain import Explain, resolve
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.passes.shards import batch_shards
from twinlens.callbacks.store.store import Store
from twinlens.data.data_report import Notes
from twinlens.models.choice import Choices, edited_by
from twinlens.models.footprint import Footprint, footprint_of
from twinlens.models.language_model import LanguageModel
from twinlens.models.module import TextClassifier


class DataModule(Protocol):
    """What stages ask of the data; `twinlens.data.text_data_module.TextDataModule` provides it."""

    name: str
    label_names: list[str]
    text_columns: list[str]
    plant_columns: list[str]
    eval_batch_size: int | Literal["auto"]
    batch_size: int
    max_length: int
    n_choices: int | None
    readout: str
    splits: dict[str, Dataset]
    folds: Mapping[str, Any]
    pair_columns: tuple[str, str] | None
    entailment_name: str | None
    notes: Notes

    @property
    def monitored(self) -> tuple[str, str] | None: ...

    @property
    def reads(self) -> Mapping[str, Any]: ...

    def fingerprint(self, split: str) -> str: ...

    def resolve_template(self) -> Any: ...

    def predict_dataloader_for(self, split: str, batches: Sequence[Sequence[int]]) -> DataLoader: ...


@dataclass
class Predictions:
    """What the model says about one split.

    Attributes:
        dataset: the rows of examples/<split>.
        features: head input, [examples, hidden] or in multiple choice [examples, choices, hidden], float32.
        fingerprint: of model and split together.
    """

    dataset: Dataset
    features: torch.Tensor
    fingerprint: str

    def column(self, name: str) -> torch.Tensor:
        """A numeric column, [examples]."""
        return self.dataset.with_format("torch", columns=[name])[name][:]


@dataclass(frozen=True)
class Epoch:
    """Weights that a fit kept at the end of an epoch.

    Attributes:
        number: from 1 on.
        folder: the checkpoint.
        weights: their fingerprint.
        learning_rate: of the epoch's last step.
        rate_sum: of the learning rates of all its steps; 0: not known.
    """

    number: int
    folder: Path
    weights: str
    learning_rate: float
    rate_sum: float = 0.0


@dataclass
class Session:
    """One run in progress.

    Attributes:
        folder: the run's directory.
        store: finished stages of all runs.
        trainers: makes a Trainer per pass.
        data: the prepared data.
        split: the split whose predictions are explained.
        memory_budget: bytes that chunks and solvers may take.
        seed: the run's seed.
        choices: whose neurons are edited in multiple choice, see `twinlens.models.choice`.
        model_target: dotted name of the model's class, on whose code its predictions depend.
        explain: what the run explains, by lens.
        model: the classifier, or for data with readout `token` the language model, once fitted or loaded.
        weights: fingerprint of the classifier's weights.
        fitted: whether this run trained them; else they come from the store or from somebody.
        predictions: per split, once computed.
        epochs: of the fit, where a method reads checkpoints.
        open_epoch: gives the model of a kept epoch's folder, where a method reads checkpoints.
        epoch_examples: folder of the stored predictions by epoch and split, once computed.
        scores: folder of stored scores by (method name with its seed where it draws, split), once computed; the
            folder's name is their fingerprint.
        found_batch_size: examples per batch that fit, where `data.eval_batch_size` is auto, once found.
    """

    folder: Path
    store: Store
    trainers: TrainerFactory
    data: DataModule
    split: str
    memory_budget: int
    seed: int
    choices: Choices = "predicted"
    model_target: str = TextClassifier.__module__
    explain: Explain = field(default_factory=Explain)
    model: TextClassifier | LanguageModel | None = None
    weights: str = ""
    fitted: bool = False
    predictions: dict[str, Predictions] = field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    open_epoch: Callable[[str], TextClassifier | LanguageModel] | None = None
    epoch_examples: dict[tuple[int, str], Path] = field(default_factory=dict)
    scores: dict[tuple[str, str], Path] = field(default_factory=dict)
    found_batch_size: int | None = None

    @property
    def classifier(self) -> TextClassifier:
        """The classifier of data with classes or choices; available after the fit stage."""
        assert isinstance(self.model, TextClassifier), "the fit stage comes first"
        return self.model

    @property
    def readable(self) -> TextClassifier | LanguageModel:
        """The model, whatever it reads out; available after the fit stage."""
        assert self.model is not None, "the fit stage comes first"
        return self.model

    def labels(self, **more: Any) -> dict[str, Any]:
        """What a person knows a stored stage by: data, seed and, once there is one, the model."""
        model = {} if self.model is None else {"model": self.model.name}
        return {**model, "data": self.data.name, "seed": self.seed, **more}

    def trained_model(self, make_model: Callable[..., Any], path: str) -> TextClassifier | LanguageModel:
        """The model of a trained checkpoint, whose weights and vocabulary stay as they are.

        Args:
            make_model: builds the run's model; keyword `path` replaces the checkpoint.
            path: of the checkpoint.
        """
        as_it_is = {} if self.readout.of_vocabulary else {"as_it_is": True}  # a language model always stays as it is
        return make_model(path=path, **as_it_is).eval()

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Arguments of the model that the data and the run give."""
        given = self.readout.arguments(self.data.label_names, self.data.n_choices, self.choices, self.data.reads)
        return {**given, "seed": self.seed}

    @property
    def reading(self) -> dict[str, Any]:
        """What edits of neurons depend on beside the model: in multiple choice, whose they are."""
        return {"choices": self.choices} if self.readout.of_sequences else {}

    @property
    def sequences(self) -> Sequences:
        """Sequences of one example: those that are read and those that edits concern."""
        read = self.readout.sequences(self.data.n_choices)
        return Sequences(read, read if edited_by(self.choices, tests=False) == "all" else 1)

    @property
    def tested_sequences(self) -> Sequences:
        """The same where neuron lists are tested."""
        read = self.readout.sequences(self.data.n_choices)
        return Sequences(read, read if edited_by(self.choices, tests=True) == "all" else 1)

    @property
    def engine_sizes(self) -> EngineSizes:
        """Sizes of the engine that neuron lists are tested with."""
        return EngineSizes(self.footprint, self.tested_sequences)

    @property
    def footprint(self) -> Footprint:
        """Sizes of the model that decide what its passes need; a vocabulary's scores count."""
        return footprint_of(self.readable.backbone, self.n_outputs if self.readout.of_vocabulary else 0)

    @property
    def n_outputs(self) -> int:
        """Scores of an example."""
        model: Any = self.readable
        asked = self.readout.outputs(self.data.label_names)
        return model.n_tokens if asked is None else asked

    @property
    def readout(self) -> ReadoutKind:
        """What the model's scores number."""
        return READOUTS[self.data.readout]

    def targets(self, lens: Lens, split: str) -> Targets:
        """What is explained of a predicted split's examples on one side of the run."""
        predicted = self.predictions[split]
        return resolve(self.explain.of(lens), predicted.column, self.fold(split), self.readout, predicted.dataset)

    def fold(self, split: str) -> torch.Tensor | None:
        """Class → folded class of a split's labels, [classes]; None: labels are the model's classes."""
        fold = self.data.folds.get(split)
        return None if fold is None else torch.tensor(fold.of_class)

    @property
    def eval_batch_size(self) -> int:
        """Examples per batch wherever no weights change; with auto available after `batch_size_stage`."""
        asked = self.data.eval_batch_size
        if asked != "auto":
            return asked
        assert self.found_batch_size is not None, "the batch size has to be found first"
        return self.found_batch_size

    def window(self, split: str) -> int | None:
        """Tokens of the windows in which a split's longer texts are read; None: nothing is longer."""
        return self.data.max_length if self.readout.has_text_losses(split) else None

    def shards(self, split: str) -> list[list[list[int]]]:
        """Length-sorted batches of a split, grouped into shards; the same for any number of processes."""
        return batch_shards(self.data.splits[split], self.eval_batch_size)

    def loader(self, split: str) -> Callable[[list[list[int]]], DataLoader]:
        """Makes loaders over given batches of a split."""
        return lambda batches: self.data.predict_dataloader_for(split, batches)
