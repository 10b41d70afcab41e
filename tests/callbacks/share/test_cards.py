"""Cards of a run: front matter that the hub reads, numbers as measured, hostile words, no places of a machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard

from tests.callbacks.fake_run import FakeRun
from twinlens.callbacks.results.results_csv import read_results
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.share.cards import write_cards
from twinlens.callbacks.share.escaping import prose, without_folders
from twinlens.callbacks.share.model_card import base_model, typed_settings, what_was_run

pytestmark = pytest.mark.usefixtures("quiet_datasets")
HOSTILE = "\n---\n| <img src=x onerror=alert(1)> [a](http://b) `c` **d** hf_" + "e" * 30 + " /home/somebody/f.csv"


def small(marker: str = "") -> FakeRun:
    return FakeRun(
        n_train=12, n_test=4, list_length=4, summary=False, instance=("gradsim",), neuron=("ig",), marker=marker
    )


def written(run: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in write_cards(run)}


def test_the_model_card_says_what_was_measured(tmp_path: Path) -> None:
    run = small().write(tmp_path / "run")
    (run / "overrides.yaml").write_text(
        yaml.safe_dump(["data=table", "data.path=../../home/me/a.csv", "method=[ig,x]"])
    )
    (run / "warnings.yaml").write_text(yaml.safe_dump([{"kind": "x", "sentence": "gradsim is near its control"}]))
    text = written(run)["README.md"]
    front: dict[str, Any] = ModelCard(text).data.to_dict()
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-classification")
    told = {
        (result["dataset"]["split"], metric["type"]): metric["value"]
        for result in front["model-index"][0]["results"]
        for metric in result["metrics"]
    }
    rows = [row for row in read_results(run / "results.csv") if not row["method"]]
    assert told == {(row["split"], row["metric"]): row["value"] for row in rows}
    assert "| test | accuracy | 0.765 ± 0.030 | 4 |" in text
    assert "| duplicates | gradsim | mrr \\@100 |  | 0.930 ± 0.020 | 4 |" in text
    assert "gradsim is near its control" in text
    assert "twinlens data=table data.path=DIR 'method=\\[ig,x\\]'" in text
    assert "/home" not in text


def test_the_data_card_counts_labels_plants_and_what_was_left_out(tmp_path: Path) -> None:
    run = small().write(tmp_path / "run")
    (run / "data.yaml").write_text(yaml.safe_dump(["labels: 3 rows without one are left out"]))
    text = written(run)["data_card.md"]
    train = RunFiles(run).examples("train").dataset
    names = RunFiles(run).gold_names("train")
    for label in set(train["label"]):
        assert f"| train | {names[label]} | {list(train['label']).count(label)} |" in text
    assert f"| train | rows with a planted wrong label | {sum(train['wrong_label'])} |" in text or not any(
        train["wrong_label"]
    )
    twins = sum(twin >= 0 for twin in train["twin"])
    assert f"| train | rows with a planted near-duplicate in another split | {twins} |" in text
    assert "- labels: 3 rows without one are left out" in text
    assert "- cut text: 7" in text
    assert "Licence: not known to twinlens" in text
    assert "Source: that of the dataset itself" in text
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("data:\n", "data:\n  queries: q.jsonl\n")
    )
    assert "Source: files of the user's own" in written(run)["data_card.md"]


def test_words_of_others_stay_words(tmp_path: Path) -> None:
    run = small(HOSTILE).write(tmp_path / "run")
    (run / "data.yaml").write_text(yaml.safe_dump([f"note {HOSTILE}"]))
    cards = written(run)
    plain_run = written(small().write(tmp_path / "plain"))
    for name, text in cards.items():
        body = text.split("\n---\n", 1)[1] if text.startswith("---\n") else text
        assert "<img" not in body.replace("\\<img", "")
        assert "hf_eee" not in text.replace("\\_", "_")
        assert "/home/somebody" not in text
        headings = [line for line in text.splitlines() if line.startswith("#")]
        there = [line for line in plain_run[name].splitlines() if line.startswith("#")]
        assert len(headings) == len(there)
        assert text.count("\n|---") == plain_run[name].count("\n|---")
    front, usual = (text["README.md"].removeprefix("---\n").split("\n---\n", 1)[0] for text in (cards, plain_run))
    assert set(yaml.safe_load(front)) == set(yaml.safe_load(usual))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("<b>", "\\<b\\>"),
        ("see http://x.y", "see http:\\/\\/x.y"),
        ("www.x.y", "www\\.x.y"),
        ("/home/me/data/x.csv", "x.csv"),
        ("C:\\Users\\me\\x.csv", "x.csv"),
        ("../../up/x", "x"),
        ("premise/hypothesis 1/2", "premise/hypothesis 1/2"),
        ("line\nbreak\u202e", "line break"),
    ],
)
def test_a_word_is_shown_as_it_is(text: str, shown: str) -> None:
    assert prose(text) == shown


def test_addresses_are_no_folders() -> None:
    assert without_folders("https://a.b/c/d and /e/f") == "https://a.b/c/d and f"


def test_a_base_is_named_only_where_it_is_one_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    node = {"_target_": "twinlens.models.module.TextClassifier", "name": "local"}
    assert base_model({**node, "path": "facebook/opt-125m"}) == "facebook/opt-125m"
    assert base_model({**node, "path": "models/mine"}) is None  # never seen on the hub
    assert (
        base_model({**node, "path": "my model/with spaces"}) is None
    )  # no name that a hub gives, nor a folder any more
    (tmp_path / "facebook" / "opt-125m").mkdir(parents=True)
    assert base_model({**node, "path": "facebook/opt-125m"}) is None  # a folder of the user's
    assert base_model({**node, "name": "opt125m", "path": "../somewhere"}) is None


def test_a_model_that_is_shipped_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"path": "models/facts"}, "seed": 1, "fit": False}))
    assert list(what_was_run(RunFiles(tmp_path)))[:2] == ["- Base: models/facts, which twinlens ships", "- Seed: 1"]


def test_typed_places_are_left_out(tmp_path: Path) -> None:
    typed = ["paths.output_dir=/x", "hydra.run.dir=/y", "push=hub:a", "model=local", "model.path=/home/me/m", "seed=1"]
    (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(typed))
    assert typed_settings(RunFiles(tmp_path)) == ["model=local", "model.path=DIR", "seed=1"]


@pytest.mark.long
def test_next_tokens_have_no_labels_to_count(tmp_path: Path) -> None:
    run = small().write(tmp_path / "run")
    for split in ("train", "validation", "test"):
        dataset = RunFiles(run).examples(split).dataset.to_dict()
        dataset["readout"] = ["token"] * len(dataset["index"])
        target = run / "examples" / split
        Dataset.from_dict(dataset).save_to_disk(str(target.with_name(f"{split}_new")))
        shutil.rmtree(target)
        target.with_name(f"{split}_new").rename(target)
    (run / "model" / "config.json").write_text('{"architectures": ["GPTNeoXForCausalLM"]}')
    cards = written(run)
    assert "## Labels" not in cards["data_card.md"]
    assert "AutoModelForCausalLM" in cards["README.md"]
