"""`twinlens.explain`: the numbers of the command line, the model as it was, and what is refused."""

from __future__ import annotations

import copy
import gc
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import twinlens
from tests.face.models_in_use import in_use, same, state_of
from tests.running import CommandLine
from tests.small_texts import documents
from twinlens.attribution.instance.bm25 import BM25
from twinlens.attribution.neuron.ig import IntegratedGradients

DOCUMENTS = documents()
PROMPT = "The capital of France is"
FEW_STEPS = "method.ig.n_steps=3"


def test_three_lines_give_the_numbers_of_the_command_line(command: CommandLine, facts: tuple[Any, Any]) -> None:
    model, tokenizer = facts
    (command.folder / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    answer = twinlens.explain(
        model, tokenizer, PROMPT, train=DOCUMENTS, methods=["ig", "influence_ekfac"], settings=[FEW_STEPS]
    )
    typed = ("fit=false", "model=local", "model.path=models/facts", "data=texts", f"data.prompt='{PROMPT}'",
             "data.generate=1", "data.train=docs.jsonl", "method=[ig,influence_ekfac]", FEW_STEPS, "evaluation=[]",
             "logger=none", "trainer.accelerator=cpu")  # fmt: skip
    run = twinlens.open(command(*typed, base=()).folder)
    for name, found in (("influence_ekfac", answer.instances), ("ig", answer.neurons)):
        own, theirs = found.to_pandas(), run.scores[name].to_pandas()
        assert len(own) == len(theirs) > 5
        assert (own.drop(columns="score") == theirs.drop(columns="score")).all(axis=None)
        np.testing.assert_allclose(own["score"], theirs["score"], rtol=1e-6, atol=1e-6)
    instances = answer.instances.to_pandas()
    assert list(instances.columns) == ["query", "target", "method", "rank", "index", "text", "score"]
    texts = [row.get("text") or row["prompt"] + row["completion"] for row in DOCUMENTS]
    assert [texts[index] for index in instances["index"]] == list(instances["text"])
    first = answer.neurons[0]
    assert (first.rank, first.site, first.query, first.method) == (1, "ffn", 0, "ig")
    assert any(passage.marked for passage in first.texts())
    compared = run.compare(answer.run)
    assert set(compared.lists()["share"]) == {1.0}
    assert answer.queries[0].startswith(PROMPT)


def test_a_model_in_use_stays_as_it_is_to_the_bit(facts: tuple[Any, Any], capfd: pytest.CaptureFixture[str]) -> None:
    model, seen = in_use(facts[0])
    before, surroundings = state_of(model), (dict(os.environ), random.getstate(), np.random.get_state()[1].copy())
    drawn = torch.get_rng_state()
    answer = twinlens.explain(
        model, facts[1], [{"prompt": PROMPT, "completion": " Paris.", "foil": " Rome."}], train=Dataset.from_list(
            [{"text": row.get("text") or row["completion"]} for row in DOCUMENTS]
        ), methods=["ig", "gradsim"], explain_against="foil", settings=[FEW_STEPS]
    )  # fmt: skip
    assert capfd.readouterr().out == ""
    assert seen == []
    assert same(state_of(model), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert (dict(os.environ), random.getstate()) == surroundings[:2]
    assert (np.random.get_state()[1] == surroundings[2]).all()
    assert "1 hook of the model was left out" in answer.notes[0]
    assert answer.instances.to_pandas()["target"][0] == "'Paris.' against 'Rome.'"
    answer.show(top=2)
    shown = capfd.readouterr().out
    assert "query 0" in shown
    assert shown.count("ffn") == 2
    assert "<table" in answer._repr_html_()
    run, folder = answer.run, answer.path
    del answer
    gc.collect()
    assert len(run.scores["ig"].to_pandas()) > 0
    del run
    gc.collect()
    assert not folder.exists()  # temporary files live as long as something reads them


@pytest.mark.long
def test_a_model_in_bfloat16_is_read_in_it_and_keeps_its_head(trained: Path) -> None:
    """The twin's head is float32 then; the model's own is not."""
    folder = trained / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(torch.bfloat16)
    before = state_of(model)
    asked = {"methods": ["ig"], "settings": ["model.dtype=bfloat16"]}
    found = twinlens.explain(model, AutoTokenizer.from_pretrained(folder), ["Bridges are so."], **asked)
    assert same(state_of(model), before)
    assert len(found.neurons) > 0


def test_a_classifier_is_explained_by_its_own_labels(trained: Path) -> None:
    folder = trained / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = [model.config.id2label[number] for number in sorted(model.config.id2label)]
    words = ("rivers", "bridges", "harbours", "mountains", "gardens", "markets", "castles", "islands")
    rows = [{"text": f"Claim about {word} is so.", "label": at % len(names)} for at, word in enumerate(words)]
    loader = DataLoader(rows, batch_size=3, shuffle=True)  # type: ignore[arg-type]
    methods = {"ig": IntegratedGradients(n_steps=2), "gradsim": "gradsim", "words": BM25()}
    given = twinlens.explain(model, tokenizer, ["Claim about bridges is so."], train=loader, methods=methods)
    one = given.instances.to_pandas(bottom=True)
    assert set(one["method"]) == {"gradsim", "words"}
    assert one[(one["method"] == "words") & (one["rank"] == 1)]["text"].item() == "Claim about bridges is so."
    assert set(one[one["method"] == "gradsim"]["target"]) <= set(names)
    assert min(one["rank"]) < 0
    assert given.neurons[0].texts()
    assert given.run.scores["ig"].settings["n_steps"] == 2


def on_meta(model: Any) -> Any:
    with torch.device("meta"):
        return type(model)(model.config)


def with_own_forward(model: Any) -> Any:
    model = copy.deepcopy(model)
    model.model.norm.forward = lambda states: states
    return model


def in_integers(model: Any) -> Any:
    model = copy.deepcopy(model)
    weight = model.model.norm.weight
    model.model.norm.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    return model


def with_nan(model: Any) -> Any:
    model = copy.deepcopy(model)
    model.model.norm.weight.data[0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        (None, {"texts": None}, "was given no texts"),
        (None, {"methods": ["gradsim"]}, "gradsim searches training instances"),
        (None, {"methods": ["influense"], "train": ["a"]}, "no method is called influense"),
        (None, {"methods": []}, "explains nothing"),
        (None, {"methods": [3]}, "3 is no method"),
        (None, {"methods": 3}, "3 is no method"),
        (None, {"methods": IntegratedGradients}, "the class IntegratedGradients is no method"),
        (None, {"methods": "IG"}, "did you mean ig?"),
        (None, {"methods": {"../ig": "ig"}}, "methods has the name '../ig'"),
        (None, {"methods": {"a.b": "ig"}}, "methods has the name 'a.b'"),
        (None, {"methods": ["ig", IntegratedGradients()]}, "ig more than once"),
        (None, {"device": "cuda:9"}, "device=cuda:9 is not on this machine"),
        (None, {"device": "tpu"}, "device=tpu is not on this machine"),
        (None, {"texts": []}, "texts has no row"),
        (None, {"texts": [torch.ones(3)]}, "texts[0] is a Tensor"),
        (None, {"texts": 3}, "texts is an int"),
        (None, {"train": [{"words": "a"}], "methods": ["bm25"]}, "has none of text, prompt and completion"),
        (None, {"explain": "no such token at all"}, "tokens ("),
        (None, {"settings": {"method.ig.steps": 3}}, "method.ig.steps"),
        (None, {"settings": {"fit": True}}, "settings names fit, which explain sets itself"),
        (None, {"settings": ["seed=1,2"]}, "settings names seed"),
        (None, {"settings": ["hydra.run.dir=x"]}, "settings names hydra.run.dir"),
        (None, {"settings": ["-m"]}, "is no settings"),
        (None, {"settings": 3}, "settings=3 is no settings"),
        (None, {"settings": "trainer.devices=2"}, "ask for 2 processes, each of which would run the calling script"),
        (None, {"folder": 3}, "folder=3 is no folder"),
        (None, {"folder": Path(__file__) / "below"}, "is no folder"),
        (None, {"store": Path(__file__)}, "is no folder"),
        (None, {"train": "one text", "methods": ["bm25"]}, "train='one text' is no file and no folder"),
        (None, {"train": "", "methods": ["bm25"]}, "train='' is no file and no folder"),
        (None, {"texts": {"prompt": "a", "completions": " b"}}, "expected completion"),
        (with_nan, {}, "the model holds NaN or infinite numbers in model.norm.weight (1 of "),
        (on_meta, {}, "has no values (it lies on the meta device"),
        (with_own_forward, {}, "the forward of model.norm was replaced"),
        (in_integers, {}, "are quantised (model.norm.weight is torch.int8)"),
        (lambda model: model.model, {}, "have a prediction to explain"),
        (lambda model: torch.nn.Linear(2, 2), {}, "or use twinlens.Task"),
        (torch.nn.DataParallel, {}, "expected the one inside, which is read on one device: pass model.module"),
    ],
)
def test_what_cannot_be_explained_is_refused(facts: tuple[Any, Any], change: Any, given: Any, said: str) -> None:
    model = facts[0] if change is None else change(facts[0])
    with pytest.raises(twinlens.UserError) as refused:
        twinlens.explain(model, facts[1], **{"texts": PROMPT, "methods": ["ig"], **given})
    assert said in str(refused.value)
    assert "expected" in str(refused.value) or "did you mean" in str(refused.value)


def test_a_class_that_cannot_be_named_is_refused(facts: tuple[Any, Any]) -> None:
    class Local(BM25):
        """As a notebook's function makes it."""

    with pytest.raises(twinlens.UserError, match=r"the class Local is not what .* has under that name"):
        twinlens.explain(*facts, PROMPT, train=DOCUMENTS, methods=[Local()])


def test_a_message_names_what_was_passed(facts: tuple[Any, Any]) -> None:
    with pytest.raises(twinlens.UserError) as refused:
        twinlens.explain(*facts, ["one", {"text": None}], train=["a b", ""], methods=["bm25"])
    assert str(refused.value).startswith(("train[1] has no token", "texts[1] has"))
    assert "/given/" not in str(refused.value)


def test_a_model_needs_its_tokenizer(facts: tuple[Any, Any]) -> None:
    with pytest.raises(twinlens.UserError, match="the tokenizer is a str"):
        twinlens.explain(facts[0], "facts", PROMPT)
    with pytest.raises(twinlens.UserError, match="without its tokenizer"):
        twinlens.explain(facts[0], None, PROMPT)


def test_files_in_a_folder_stay_and_can_be_moved(tmp_path: Path) -> None:
    asked = {"model": "models/facts", "texts": PROMPT, "methods": ["logprob_increase"]}
    moved = twinlens.explain(**asked, folder=tmp_path / "kept").path.rename(tmp_path / "moved")
    assert len(twinlens.open(moved).scores["logprob_increase"].to_pandas()) > 0
    with pytest.raises(twinlens.UserError, match="holds a run already"):
        twinlens.explain(**asked, folder=moved)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(twinlens.UserError, match=r"has no config\.yaml"):
        twinlens.open(tmp_path)
    with pytest.raises(twinlens.UserError, match="is no folder"):
        twinlens.open(tmp_path / "absent")


def test_scores_of_no_method_are_refused(trained: Path) -> None:
    with pytest.raises(twinlens.UserError, match="no scores of ig; expected one of gradsim"):
        twinlens.open(trained).scores["ig"]


def test_two_runs_are_compared_number_by_number(trained: Path) -> None:
    compared = twinlens.open(trained).compare(trained)
    numbers = compared.results()
    assert len(numbers) == len(twinlens.open(trained).results())
    assert set(numbers["difference"]) == {0.0}
    assert set(compared.lists()["share"]) == {1.0}
