"""Questions through the stages: predictions, neurons and faithfulness of a hand-made multiple-choice split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, get_args

import datasets
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from tests.families import choice_batch, tiny_backbone
from tests.models.test_module import ARCHITECTURE
from twinlens.attribution.engine_sizes import EngineSizes, Sequences
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.evaluate.faithfulness import faithfulness_stage
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.stage import examples_stage
from twinlens.callbacks.store.store import Store
from twinlens.data.labels import Fold
from twinlens.models.backbone import load_tokenizer
from twinlens.models.choice import Choices
from twinlens.models.footprint import footprint_of
from twinlens.models.module import TextClassifier

LENGTHS = [[6, 9, 7], [4, 4, 11], [8, 3, 1], [5, 2, 9], [7, 7, 7]]


class Questions:
    """What the stages ask of a data module, over five questions of three choices."""

    name = "questions"
    readout = "choice"
    n_choices: int | None = 3
    reads: ClassVar[dict[str, object]] = {"template": "reference", "max_length": 512, "bos": True}
    eval_batch_size = 2
    batch_size = 2

    def __init__(self) -> None:
        self.label_names = ["A", "B", "C"]
        self.folds: dict[str, Fold] = {}
        self.text_columns = ["question"]
        self.plant_columns: list[str] = []
        self.batch = choice_batch(LENGTHS)
        ids = [
            [row[mask.bool()].tolist() for row, mask in zip(question, masks, strict=True)]
            for question, masks in zip(self.batch["input_ids"], self.batch["attention_mask"], strict=True)
        ]
        columns = {"index": range(5), "question": list("abcde"), "label": self.batch["labels"].tolist()}
        self.splits = {"test": datasets.Dataset.from_dict({**columns, "input_ids": ids})}

    def fingerprint(self, split: str) -> str:
        return split

    def predict_dataloader_for(self, split: str, batches: Sequence[Sequence[int]]) -> DataLoader:
        parts = [{name: tensor[list(rows)] for name, tensor in self.batch.items()} for rows in batches]
        return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


def session_of(folder: Path, choices: Choices) -> Session:
    data = Questions()
    trainers = TrainerFactory(partial(Trainer, accelerator="cpu", devices=1))
    session = Session(folder / choices, Store(folder / "store", False), trainers, data, "test", 2**30, 0, choices)
    tokenizer = load_tokenizer("models/tiny")
    model = TextClassifier("tiny", tokenizer=tokenizer, architecture=ARCHITECTURE, **session.model_arguments)
    session.model = model.eval()
    session.weights = "w"
    return session


@pytest.mark.parametrize("choices", get_args(Choices))
def test_stages_give_what_the_model_gives(tmp_path: Path, choices: Choices) -> None:
    session = session_of(tmp_path, choices)
    batch, model = Questions().batch, session.classifier
    examples_stage(session, "test")
    predictions = session.predictions["test"]
    with torch.no_grad():
        features = model.features(batch)
        prob = model(batch).softmax(-1)
    assert predictions.features.shape == (5, 3, 32)
    assert torch.allclose(predictions.features, features, atol=1e-5)
    assert torch.allclose(predictions.column("prob"), prob, atol=1e-6)
    assert torch.equal(predictions.column("prediction"), prob.argmax(-1))
    assert predictions.dataset["readout"][:] == ["choice"] * 5
    assert [[len(ids) for ids in question] for question in predictions.dataset["input_ids"][:]] == LENGTHS

    method = IntegratedGradients(n_steps=2, top_k=10)
    attribute_stage(session, "ig", {"ig": method}, {"ig": {"n_steps": 2, "top_k": 10}})
    stored = datasets.load_from_disk(str(session.scores["ig", "test"] / "test")).with_format("torch")
    ranked = method.attribute(model.engine(), batch, 2**30)
    assert torch.allclose(stored["score"][:], ranked.score, atol=1e-6)
    assert f"choices: {choices}" in (session.scores["ig", "test"] / "method.yaml").read_text()

    evaluation = Faithfulness([1], [10], control_seeds=[0], intervention="mean", reference_size=4)
    rows = faithfulness_stage(session, "faithfulness", evaluation, {}, {"ig": method})
    assert {(row.method, row.n) for row in rows} == {("ig", 5), ("random_neurons", 5), ("no_neurons", 5)}
    assert {row.variant for row in rows} == {"intervention=mean"}


def test_the_reading_is_part_of_what_is_stored(tmp_path: Path) -> None:
    scores, predictions = [], []
    for choices in get_args(Choices):
        session = session_of(tmp_path, choices)
        examples_stage(session, "test")
        attribute_stage(session, "ig", {"ig": IntegratedGradients(n_steps=1, top_k=5)}, {"ig": {"n_steps": 1}})
        scores.append(session.scores["ig", "test"])
        predictions.append((session.folder / "examples" / "test").resolve())
    assert len(set(scores)) == 3
    assert len(set(predictions)) == 1


def test_lists_of_the_best_sequence_are_tested_in_all_of_them(tmp_path: Path) -> None:
    """The first paper's combination, by full forwards of every sequence with the neurons zeroed by hand."""
    session, alone = session_of(tmp_path, "predicted_edit_all"), session_of(tmp_path, "predicted")
    model, batch = session.classifier, Questions().batch
    method = IntegratedGradients(n_steps=2, top_k=12)
    found, of_best = (method.attribute(one.classifier.engine(), batch, 2**30) for one in (session, alone))
    assert torch.equal(found.unit, of_best.unit)  # lists are those of the best sequence
    lists = {"ig": (found.layer, found.unit)}
    evaluation = Faithfulness([1], [12])
    answers = evaluation.answers(model.engine(tests=True), batch, lists, 2**30)
    others = evaluation.answers(alone.classifier.engine(tests=True), batch, lists, 2**30)
    clean = prediction_with(model, batch, torch.zeros(5, 4, 0))
    everything = torch.ones(5, model.engine().n_layers, model.engine().n_neurons, dtype=torch.bool)
    for test, r in (("sufficiency", 1), ("comprehensiveness", 12)):
        listed = torch.zeros_like(everything)
        for row in range(5):
            listed[row, found.layer[row, :r].long(), found.unit[row, :r].long()] = True
        zeroed = everything & ~listed if test == "sufficiency" else listed
        prob = prediction_with(model, batch, zeroed)
        left = prob.gather(1, clean.argmax(1, keepdim=True))[:, 0]
        assert torch.allclose(answers[f"ig|{test}|{r}|probability"], left, atol=1e-5)
        assert not torch.allclose(others[f"ig|{test}|{r}|probability"], left, atol=1e-3)
    assert session.sequences.edited == 1
    assert session.engine_sizes.sequences.edited == 3


def prediction_with(model: TextClassifier, batch: dict[str, torch.Tensor], zeroed: torch.Tensor) -> torch.Tensor:
    """Probabilities of the choices with neurons zeroed at the last token of every sequence, one at a time."""
    scores = torch.zeros(batch["input_ids"].shape[:2])
    blocks = model.backbone.layers
    for question in range(len(scores)):
        for choice in range(scores.shape[1]):
            ids = batch["input_ids"][question, choice][batch["attention_mask"][question, choice].bool()]

            def cut(
                module: object, given: tuple[torch.Tensor], layer: int, question: int = question
            ) -> tuple[torch.Tensor]:
                kept = given[0].clone()
                kept[:, -1, zeroed[question, layer].bool()] = 0
                return (kept,)

            handles = [
                block.mlp.dense_4h_to_h.register_forward_pre_hook(partial(cut, layer=layer))
                for layer, block in enumerate(blocks)
                if zeroed.shape[-1]
            ]
            with torch.no_grad():
                hidden = model.backbone(input_ids=ids[None]).last_hidden_state[0, -1]
                scores[question, choice] = model.head(hidden)[0]
            for handle in handles:
                handle.remove()
    return scores.softmax(-1)


def test_memory_of_questions_counts_their_sequences() -> None:
    footprint = footprint_of(tiny_backbone("gpt2"))
    method = IntegratedGradients(n_steps=4)
    counted = Sequences(), Sequences(5, 5), Sequences(5, 1)
    one, joint, predicted = (method.need(EngineSizes(footprint, sequences)) for sequences in counted)
    assert joint.most(20) == 5 * one.most(20)
    assert joint.least(20) == 5 * one.least(20)
    assert one.least(20) <= predicted.least(20) <= joint.least(20)
    assert prediction_need(footprint, Sequences(5, 1)).least(20) == 5 * prediction_need(footprint).least(20)
    joint_sizes = EngineSizes(footprint, Sequences(5, 5))
    single, several = (Faithfulness(positions="all").need(s, 4, ()) for s in (EngineSizes(footprint), joint_sizes))
    assert several.most(20) == 5 * single.most(20) > Faithfulness().need(joint_sizes, 4, ()).most(20)
