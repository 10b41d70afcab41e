"""Evaluations of the second paper as a stage: going on from shards, nothing computed twice, what the answers are of."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import datasets
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tests.tiny_llama import LLAMA
from twinlens.attribution.evaluation.neuron_level.importance_sums import ImportanceSums
from twinlens.attribution.evaluation.neuron_level.segments import Segments
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences
from twinlens.attribution.evaluation.neuron_level.value_interventions import ValueInterventions
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.part_scores import HeadScore
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.evaluate import neuron_level
from twinlens.callbacks.evaluate import neuron_level_pass as passes
from twinlens.callbacks.evaluate.neuron_level import neuron_level_pass, neuron_level_stage, token_text
from twinlens.callbacks.evaluate.neuron_level_pass import types_of
from twinlens.callbacks.passes.explain import Asked, Explain
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.stage import examples_stage
from twinlens.callbacks.store.store import Store
from twinlens.data.knowledge import KnowledgeDataModule
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel

METHODS = {"logprob_increase": NeuronScore(top_k=5), "heads": HeadScore(top_k=3)}
SETTINGS: dict[str, dict[str, Any]] = {"logprob_increase": {"top_k": 5}, "heads": {"top_k": 3}}


class Lengths:
    """An evaluation of two passes: tokens of each sentence, then these beside what the first pass gave on the whole."""

    requires: ClassVar[str] = "neuron_level"
    reads_lists: ClassVar[bool] = True
    longest = 4

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.again: list[int] = []
        self.fails_at: int | None = None

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        index = sentences.batch["index"].tolist()
        if self.fails_at in index:
            raise RuntimeError("out of luck")
        self.seen += index
        layers = sentences.lists["logprob_increase"].layer
        return {
            "length": sentences.batch["attention_mask"].sum(1),
            "target": sentences.target,
            "layer": layers,
            "lists": torch.full_like(sentences.target, len(sentences.lists)),
        }

    def chosen(self, answers: dict[str, Tensor], prompts: Prompts) -> dict[str, Tensor]:
        return {"longest": answers["length"].max()}

    def second(self, sentences: Sentences, chosen: dict[str, Tensor]) -> dict[str, Tensor]:
        self.again += sentences.batch["index"].tolist()
        return {"short_by": chosen["longest"] - sentences.batch["attention_mask"].sum(1)}

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        self.found = answers
        total = answers["length"] + answers["short_by"]
        return [Result("total", float(total[rows].double().mean()), group=name) for name, rows in prompts.groups()]


@pytest.fixture(scope="module")
def prompts_data() -> KnowledgeDataModule:
    data = KnowledgeDataModule(types=["month", "colour"], only_known=False, limit={"test": 18}, eval_batch_size=2)
    data.prepare(load_tokenizer("models/facts"))
    return data


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, prompts_data: KnowledgeDataModule) -> Session:
    """A tiny language model with its predictions and scores."""
    folder = tmp_path_factory.mktemp("neuron_level")
    trainers = TrainerFactory(partial(Trainer, accelerator="cpu", devices=1))
    made = Session(folder / "run", Store(folder / "store", False), trainers, prompts_data, "test", 2**30, 0)
    made.explain = Explain(neuron=Asked("answer"))
    tokenizer = load_tokenizer("models/facts")
    made.model = LanguageModel("tiny", tokenizer, architecture=LLAMA, seed=1).eval().requires_grad_(False)
    made.weights = "w"
    examples_stage(made, "test")
    for name in METHODS:
        attribute_stage(made, name, METHODS, SETTINGS)
    return made


def results(session: Session, evaluation: Lengths, test: str, **settings: Any) -> list[Result]:
    """What is stored for one test is of no other."""
    return neuron_level_stage(session, "lengths", evaluation, {"test": test, **settings}, METHODS)


def test_a_stage_goes_on_from_its_shards_and_computes_nothing_twice(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation, n = Lengths(), len(session.data.splits["test"])
    evaluation.fails_at = session.shards("test")[-1][-1][-1]
    with pytest.raises(RuntimeError, match="out of luck"):
        results(session, evaluation, "shards")
    before = sorted(evaluation.seen)
    assert 0 < len(before) < n
    evaluation.seen.clear()
    evaluation.fails_at = None
    found = results(session, evaluation, "shards")
    assert "shards are there, going on" in capsys.readouterr().out
    assert sorted(before + evaluation.seen) == list(range(n))
    assert sorted(evaluation.again) == list(range(n))

    second = Lengths()
    assert results(session, second, "shards") == found
    assert (second.seen, second.again) == ([], [])
    for name, answers in evaluation.found.items():
        assert torch.equal(second.found[name], answers), name

    changed = Lengths()
    results(session, changed, "shards", longest=9)
    assert len(changed.seen) == len(changed.again) == n


def test_answers_stand_in_the_order_of_the_sentences(session: Session) -> None:
    evaluation = Lengths()
    (whole, *by_type) = results(session, evaluation, "order")
    found, rows = evaluation.found, session.data.splits["test"]
    lengths = [len(ids) for ids in rows["input_ids"][:]]
    assert len(set(lengths)) > 1, "batches are sorted by length, so that the order could be lost"
    assert found["length"].tolist() == lengths
    assert (found["length"] + found["short_by"]).tolist() == [max(lengths)] * len(lengths)
    assert (whole.value, whole.group) == (max(lengths), "")
    assert {result.group for result in by_type} == set(rows["type"][:]) == set(types_of(session))
    assert found["target"].tolist() == rows["label"][:] == session.targets("neuron", "test").target.tolist()
    assert token_text(session.readable.tokenizer, session, rows["label"][0]).strip() == rows["answer"][0]


def test_only_lists_of_value_neurons_are_read_each_for_its_own_sentence(session: Session) -> None:
    evaluation = Lengths()
    results(session, evaluation, "lists")
    assert set(evaluation.found["lists"].tolist()) == {1}  # heads are no neurons
    stored = datasets.load_from_disk(str(session.scores["logprob_increase", "test"] / "test"))
    assert evaluation.found["layer"][:, :5].tolist() == stored["layer"][:]


def passes_seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles of the passes, filled while they run."""
    titles: list[str] = []
    run = passes.run_pass

    def told(title: str, *arguments: Any) -> Any:
        titles.append(title)
        return run(title, *arguments)

    monkeypatch.setattr(passes, "run_pass", told)
    return titles


def test_one_pass_answers_all_evaluations_that_the_store_lacks(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles, length = passes_seen(monkeypatch), Lengths()
    asked = {"segments": Segments(3), "values": ValueInterventions(2, 2, control_seeds=[0]), "lengths": length}
    settings: dict[str, dict[str, Any]] = {name: {"of": name, "test": "together"} for name in asked}
    length.fails_at = session.shards("test")[-1][-1][-1]
    with pytest.raises(RuntimeError, match="out of luck"):
        neuron_level_pass(session, asked, settings, METHODS)
    before, length.fails_at = len(length.seen), None
    assert not list(session.store.root.rglob("*.lock"))
    jobs = neuron_level_pass(session, asked, settings, METHODS)
    assert len(length.seen) == len(session.data.splits["test"]), "shards of the same evaluations are gone on from"
    assert 0 < before < len(length.seen)
    assert [set(title.removesuffix(" on test").split(", ")) for title in titles] == [set(asked)] * 2
    found = {name: neuron_level_stage(session, name, one, settings[name], METHODS) for name, one in asked.items()}
    assert titles[2:] == ["lengths on test"], "the second pass of what follows from all sentences, nothing else"

    read = list[str]()
    monkeypatch.setattr(neuron_level, "value_lists", lambda *given: read.append("again"))
    assert jobs["lengths"].lists
    assert neuron_level_stage(session, "lengths", length, settings["lengths"], METHODS, jobs["lengths"]) == [
        *found["lengths"]
    ]
    assert read == [], "the stage takes the lists from the pass, and does not read them again"
    monkeypatch.undo()
    titles = passes_seen(monkeypatch)

    alone = {**settings, "segments": {"of": "segments", "test": "alone"}}
    neuron_level_pass(session, asked, alone, METHODS)
    assert titles == ["segments on test"], "a changed evaluation is computed by itself"
    again = neuron_level_stage(session, "segments", asked["segments"], alone["segments"], METHODS)
    assert [(row.metric, row.k, row.group, row.value) for row in again] == [
        (row.metric, row.k, row.group, pytest.approx(row.value, rel=1e-5)) for row in found["segments"]
    ]


def test_sums_over_neurons_go_through_the_layers_with_all_sentences(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles, test = passes_seen(monkeypatch), ImportanceSums([5], largest_share=1.0)
    sizes: list[list[int]] = []
    of_part = test.of_part

    def told(model: Any, scored: Any, number: int, budget: int) -> dict[str, Tensor]:
        sizes.append([number, len(scored)])
        return of_part(model, scored, number, budget)

    monkeypatch.setattr(test, "of_part", told)
    found = neuron_level_stage(session, "sums", test, {"test": "sums"}, METHODS)
    engine, n = session.readable.residual_engine(), len(session.data.splits["test"])
    assert titles == ["sums on test"]
    assert sizes == [[number, n] for number in range(2 * engine.n_layers)], "every part once, of all sentences"

    target = session.targets("neuron", "test").target
    batches = [[row] for row in range(n)]
    own = ImportanceSums([5], largest_share=1.0)
    alone = [
        own.answers(Sentences(engine, batch, target[batch["index"]], 2**30))
        for batch in session.loader("test")(batches)
    ]
    for site in ("ffn", "attention"):
        rows = [
            row.value
            for row in found
            if row.reference_group == site and row.group == "" and row.metric[:8] == "increase"
        ]
        assert rows == pytest.approx(torch.cat([one[site] for one in alone]).mean(0).tolist(), rel=1e-4)

    monkeypatch.setattr(passes, "sentences_at_once", lambda *_: 4)
    sizes.clear()
    again = neuron_level_stage(session, "sums", test, {"test": "in groups"}, METHODS)
    assert max(size for _, size in sizes) <= 4
    assert [row.value for row in again] == pytest.approx([row.value for row in found], rel=1e-5)
