"""Hand-made splits of every readout, a tiny model over them, and what the stages ask of a data module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from tests.families import choice_batch, random_batch
from tests.models.test_module import ARCHITECTURE
from tests.oracles_gradients import layer_gradients
from twinlens.attribution.protocols import LinearLayer
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.passes.explain import Asked, Explain
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.stage import examples_stage
from twinlens.callbacks.store.store import Store
from twinlens.data.labels import Fold
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel
from twinlens.models.linear_layers import linear_layers
from twinlens.models.module import TextClassifier

Readout = Literal["classification", "choice", "token"]
LENGTHS = {"train": [5, 8, 3, 6, 2, 7, 4, 9, 5, 3, 6, 4, 7], "test": [4, 7, 2, 6, 5]}
FOLD = Fold(("one", "other"), (0, 1, 1))


class Rows:
    """Train and test rows of random tokens.

    Args:
        readout: what their labels number.
        padding: side of the padding.
        batch_size: rows per batch.
        folded: whether the test split's labels join two classes.
    """

    name = "rows"
    answer = "first"
    max_length = 512
    reads: ClassVar[dict[str, object]] = {"template": "reference", "max_length": 512, "bos": True}
    batch_size = 2

    def __init__(self, readout: Readout, padding: str = "right", batch_size: int = 3, folded: bool = False) -> None:
        self.readout = readout
        self.n_choices = 3 if readout == "choice" else None
        self.eval_batch_size = batch_size
        self.label_names = [] if readout == "token" else ["A", "B", "C"]
        self.folds = {"test": FOLD} if folded else {}
        self.text_columns = ["text"]
        self.plant_columns: list[str] = []
        self.batches, self.splits = {}, {}
        for seed, (split, lengths) in enumerate(LENGTHS.items()):
            if readout == "choice":
                batch = choice_batch([[length, 10 - length, 4] for length in lengths], padding, seed)
            else:
                batch = random_batch(lengths, padding, seed)
            if readout == "token":
                batch["labels"] = batch["labels"] * 7 + 5
            if split in self.folds:
                batch["labels"] = batch["labels"].clamp(max=1)
            columns = {"index": range(len(lengths)), "text": ["t"] * len(lengths), "type": ["t"] * len(lengths)}
            ids = unpadded(batch["input_ids"], batch["attention_mask"])
            self.batches[split] = batch
            self.splits[split] = datasets.Dataset.from_dict(
                {**columns, "label": batch["labels"].tolist(), "input_ids": ids}
            )

    def fingerprint(self, split: str) -> str:
        return f"{split} {self.readout}"

    def predict_dataloader_for(self, split: str, batches: Sequence[Sequence[int]]) -> DataLoader:
        parts = [{name: tensor[list(rows)] for name, tensor in self.batches[split].items()} for rows in batches]
        return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


def unpadded(ids: Tensor, mask: Tensor) -> Any:
    if ids.dim() == 3:
        return [unpadded(*pair) for pair in zip(ids, mask, strict=True)]
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


def session_of(folder: Path, data: Any, budget: int = 2**26) -> Session:
    """A session after the examples stage, with large random weights."""
    trainers = TrainerFactory(partial(Trainer, accelerator="cpu", devices=1))
    session = Session(folder / "run", Store(folder / "store", False), trainers, data, "test", budget, 0)
    session.explain = Explain(Asked("gold"), Asked("gold"))
    made = LanguageModel if data.readout == "token" else TextClassifier
    tokenizer = load_tokenizer("models/tiny")
    model: Any = made("tiny", tokenizer=tokenizer, architecture=ARCHITECTURE, **session.model_arguments)
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    session.model = model.eval().requires_grad_(False)
    session.weights = "w"
    for split in ("train", "test"):
        examples_stage(session, split)
    return session


def attributed(session: Session, name: str, method: Any, settings: Mapping[str, Any]) -> Path:
    """Where the scores of a method are."""
    attribute_stage(session, name, {name: method}, {name: dict(settings)})
    return session.scores[name, "test"]


def dense_scores(folder: Path) -> Tensor:
    """[tests, train rows] from lists as long as the train split."""
    stored = datasets.load_from_disk(str(folder / "test")).with_format("torch")
    index, score = stored["top_index"][:], stored["top_score"][:]
    assert torch.equal(score, score.sort(1, descending=True).values)
    assert torch.equal(stored["bottom_score"][:], score.flip(1))
    return torch.zeros_like(score).scatter(1, index, score)


def gradients_of(session: Session, params: str) -> tuple[list[LinearLayer], dict[str, list[Tensor]]]:
    """Per-example autograd in float64: the layers, and split → layers → [examples, d_out, d_in + bias]."""
    model: Any = session.readable.double()
    layers = linear_layers(model.lm, model.head, params)
    data: Any = session.data

    def loss_of(split: str, batch: Mapping[str, Tensor]) -> Tensor:
        if data.readout == "token" and split == "train":  # as it was trained: every token behind the first
            ids = batch["input_ids"][:, batch["attention_mask"][0].bool()]
            return cross_entropy(model.lm(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        scores = model(batch)
        if split not in data.folds:
            return cross_entropy(scores, batch["labels"], reduction="sum")
        within = torch.tensor(data.folds[split].of_class)[None] == batch["labels"][:, None]
        return -scores.softmax(-1).masked_fill(~within, 0).sum(1).log().sum()

    found = {split: layer_gradients(layers, partial(loss_of, split), data.batches[split]) for split in LENGTHS}
    return layers, found
