"""report.html of runs of every kind: one lens, none, tokens, choices, folded labels, another split."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, load_from_disk

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import Page, articles
from twinlens.callbacks.report.chosen_examples import choose_examples
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("quiet_datasets")


def test_published_figures_stand_beside_ones_own(tmp_path: Path) -> None:
    run = FakeRun().write(tmp_path)
    (run / "tables").mkdir()
    (run / "tables" / "table_2.csv").write_text("method,sufficiency,published\nig,61.5,84.42\n'=evil,1,2\n")
    html = write_report(run).read_text(encoding="utf-8")
    assert '<th scope="col" class="num published">published</th>' in html
    assert '<td class="num published">84.42</td>' in html
    assert "=evil" in Page(html).words


def test_unlabelled_examples_are_no_errors(tmp_path: Path) -> None:
    page = Page(write_report(FakeRun(unlabelled=True).write(tmp_path)).read_text(encoding="utf-8"))
    verdicts = [attrs.get("data-verdict") for tag, attrs in page.tags if tag == "article"]
    assert verdicts == ["unlabelled"] * 20
    assert "labelled" not in page.words.split("Examples 20 of 40")[1].split("Training instances on this page")[0]


@pytest.mark.parametrize(
    ("neuron", "instance", "absent", "present"),
    [
        ((), ("gradsim",), {"layers"}, {"training", "instances"}),
        (("ig",), (), {"training", "instances"}, {"layers"}),
        ((), (), {"layers", "training", "instances"}, {"results", "examples", "data"}),
    ],
)
def test_a_run_with_one_lens_or_none_has_a_page(
    tmp_path: Path, neuron: tuple[str, ...], instance: tuple[str, ...], absent: set[str], present: set[str]
) -> None:
    page = Page(write_report(FakeRun(neuron=neuron, instance=instance).write(tmp_path)).read_text(encoding="utf-8"))
    ids = {attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs}
    assert not ids & absent
    assert present <= ids
    assert len([tag for tag, _ in page.tags if tag == "article"]) == 20
    assert {link[1:] for link in page.attributes("a", "href")} & absent == set()


def test_answers_that_are_tokens_have_a_page(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=(), n_test=6).write(tmp_path)
    rows = load_from_disk(str(run / "examples" / "test")).remove_columns(["prob", "prediction", "label"])
    tokens = [row | {"label": None, "target_prob": 0.1 * (i + 1), "target_rank": i} for i, row in enumerate(rows)]
    Dataset.from_list(tokens).save_to_disk(str(run / "other"))
    (run / "examples" / "test").rename(run / "old")
    (run / "other").rename(run / "examples" / "test")
    html = write_report(run).read_text(encoding="utf-8")
    assert re.findall(r'id="test-(\d+)"', html) == ["5", "4", "3", "2", "1", "0"]  # by falling probability
    assert set(re.findall(r'data-verdict="(\w+)"', html)) == {"unlabelled"}


def test_a_question_shows_its_choices_by_letter(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=("gradsim",), n_train=20, n_test=6, list_length=5, plants=False).write(
        tmp_path
    )
    for split in ("train", "test"):
        rows = load_from_disk(str(run / "examples" / split)).to_list()
        for row in rows:
            row["choices"] = [f"<b>{word}{row['index']}</b>" for word in ("bank", "shore", "stool")]
            row["input_ids"] = [[1, 2], [3], [4]]
        Dataset.from_list(rows).save_to_disk(str(run / "other"))
        shutil.rmtree(run / "examples" / split)
        (run / "other").rename(run / "examples" / split)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "choices A: <b>bank0</b> B: <b>shore0</b> C: <b>stool0</b>" in page.words
    prediction = load_from_disk(str(run / "examples" / "test"))[0]["prediction"]
    assert f"Predicted {'ABC'[prediction]} with" in page.words
    assert "Supported" not in page.words  # letters name the classes


def test_folded_labels_are_named_and_judged_as_the_split_counts_them(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=("gradsim",), n_train=20, n_test=30, list_length=5, plants=False).write(
        tmp_path
    )
    folder = run / "examples" / "test"
    rows = load_from_disk(str(folder)).to_list()
    for row in rows:
        row["folded_prediction"] = int(row["prediction"] > 0)
        row["label"] = 1 - row["folded_prediction"] if row["index"] % 3 == 0 else row["folded_prediction"]
    names = ClassLabel(names=["backed", "not backed"])
    folded = Dataset.from_list(rows)
    folded = folded.cast(Features({**folded.features, "label": names, "folded_prediction": names}))
    shutil.rmtree(folder)
    folded.save_to_disk(str(folder))
    chosen = choose_examples(RunFiles(run))
    assert [index for index in chosen if index % 3 == 0] == chosen[:10]  # all ten wrong ones come first
    html = write_report(run).read_text(encoding="utf-8")
    classes = ["Supported", "Refuted", "Not Enough Evidence"]
    for index in chosen:
        (article,) = articles(html, index)
        row = rows[index]
        assert f'data-verdict="{"wrong" if index % 3 == 0 else "right"}"' in article
        counted = names.names[row["folded_prediction"]]
        assert f"Predicted {classes[row['prediction']]} , which counts as {counted} , with" in Page(article).words
        assert f", labelled {names.names[row['label']]}" in Page(article).words
        assert "given" not in article  # no class of the model is the label
    assert "Labels are coarser than the model's classes (backed, not backed)." in Page(html).words


def test_the_split_that_was_asked_for_is_explained(tmp_path: Path) -> None:
    run = FakeRun(neuron=(), instance=()).write(tmp_path)
    with (run / "config.yaml").open("a") as config:
        config.write("attribute_split: validation\n")
    html = write_report(run).read_text(encoding="utf-8")
    assert "Validation example 0" in Page(html).words
    assert 'id="test-' not in html


def test_data_are_called_what_the_results_call_them(tmp_path: Path) -> None:
    run = FakeRun(data="mnli-split-validation/hans").write(tmp_path / "run")
    config = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(config.replace("mnli-split-validation/hans", "mnli"), encoding="utf-8")
    assert "training examples of mnli-split-validation/hans and read" in Page(write_report(run).read_text()).words


def test_only_explained_examples_are_shown(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=()).write(tmp_path)
    folder = run / "scores" / "ig" / "test"
    some = load_from_disk(str(folder)).select([39, 3, 17])
    Dataset.from_list(some.to_list()).save_to_disk(str(run / "some"))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    (run / "some").rename(folder)
    html = write_report(run).read_text(encoding="utf-8")
    assert sorted(map(int, re.findall(r'id="test-(\d+)"', html))) == [3, 17, 39]


def test_without_label_names_classes_have_numbers(tmp_path: Path) -> None:
    run = FakeRun(neuron=(), instance=()).write(tmp_path)
    (run / "model" / "config.json").unlink()
    html = write_report(run).read_text(encoding="utf-8")
    assert set(re.findall(r'data-prediction="([^"]*)"', html)) <= {"0", "1", "2"}
