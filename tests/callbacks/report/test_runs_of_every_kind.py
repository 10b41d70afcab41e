"""report.html of runs of every kind: one lens, none, tokens, choices, folded labels, another split."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, load_from_disk

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import Page, island
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
    html = write_report(FakeRun(unlabelled=True).write(tmp_path)).read_text(encoding="utf-8")
    tests = island(html)["tests"]
    assert tests["verdict"] == [0] * 40
    assert set(tests["label"]) == {""}


@pytest.mark.parametrize(
    ("neuron", "instance", "absent", "present"),
    [
        ((), ("gradsim",), {"layers", "units"}, {"instances"}),
        (("ig",), (), {"instances"}, {"layers", "units"}),
        ((), (), {"layers", "instances", "units"}, {"results", "examples", "data"}),
    ],
)
def test_a_run_with_one_lens_or_none_has_a_page(
    tmp_path: Path, neuron: tuple[str, ...], instance: tuple[str, ...], absent: set[str], present: set[str]
) -> None:
    html = write_report(FakeRun(neuron=neuron, instance=instance).write(tmp_path)).read_text(encoding="utf-8")
    page, data = Page(html), island(html)
    ids = {attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs}
    assert not ids & absent
    assert present <= ids
    assert len(data["tests"]["index"]) == 40
    assert len(data["train"]["index"]) == (120 if instance else 0)
    assert [method["name"] for method in data["methods"]] == [*neuron, *instance]
    assert {link[1:] for link in page.attributes("a", "href")} & absent == set()


def test_answers_that_are_tokens_have_a_page(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=(), n_test=6).write(tmp_path)
    rows = load_from_disk(str(run / "examples" / "test")).remove_columns(["prob", "prediction", "label"])
    tokens = [row | {"label": None, "target_prob": 0.1 * (i + 1), "target_rank": i} for i, row in enumerate(rows)]
    Dataset.from_list(tokens).save_to_disk(str(run / "other"))
    (run / "examples" / "test").rename(run / "old")
    (run / "other").rename(run / "examples" / "test")
    tests = island(write_report(run).read_text(encoding="utf-8"))["tests"]
    assert tests["index"] == [5, 4, 3, 2, 1, 0]  # by falling probability
    assert tests["prob"] == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert set(tests["verdict"]) == {0}


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
    html = write_report(run).read_text(encoding="utf-8")
    tests = island(html)["tests"]
    place = tests["index"].index(0)
    assert tests["texts"][tests["columns"].index("choices")][place] == (
        "A: <b>bank0</b>\nB: <b>shore0</b>\nC: <b>stool0</b>"
    )
    prediction = load_from_disk(str(run / "examples" / "test"))[0]["prediction"]
    assert tests["prediction"][place] == "ABC"[prediction]
    assert "Supported" not in Page(html).words  # letters name the classes


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
    chosen = choose_examples(RunFiles(run), 20)
    assert [index for index in chosen if index % 3 == 0] == chosen[:10]  # all ten wrong ones come first
    html = write_report(run).read_text(encoding="utf-8")
    tests, classes = island(html)["tests"], ["Supported", "Refuted", "Not Enough Evidence"]
    for place, index in enumerate(tests["index"]):
        assert tests["verdict"][place] == (2 if index % 3 == 0 else 1)
        assert tests["prediction"][place] == classes[rows[index]["prediction"]]
        assert tests["counted"][place] == names.names[rows[index]["folded_prediction"]]
        assert tests["label"][place] == names.names[rows[index]["label"]]
    assert "Labels are coarser than the model's classes (backed, not backed)." in Page(html).words


def test_the_split_that_was_asked_for_is_explained(tmp_path: Path) -> None:
    run = FakeRun(neuron=(), instance=()).write(tmp_path)
    with (run / "config.yaml").open("a") as config:
        config.write("attribute_split: validation\n")
    html = write_report(run).read_text(encoding="utf-8")
    assert island(html)["tests"]["split"] == "validation"
    assert "All 10 validation examples" in Page(html).words


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
    assert sorted(island(write_report(run).read_text(encoding="utf-8"))["tests"]["index"]) == [3, 17, 39]


def test_without_label_names_classes_have_numbers(tmp_path: Path) -> None:
    run = FakeRun(neuron=(), instance=()).write(tmp_path)
    (run / "model" / "config.json").unlink()
    assert set(island(write_report(run).read_text(encoding="utf-8"))["tests"]["prediction"]) <= {"0", "1", "2"}


def test_lists_of_units_and_of_train_rows_cross(tmp_path: Path) -> None:
    """What built a neuron stands beside it, and a train instance has neurons of its own."""
    run = FakeRun(neuron=("ig",), instance=("gradsim",), n_train=12, n_test=3, list_length=4).write(tmp_path)
    own = [{"index": i, "layer": [1, 2], "unit": [i, 7], "score": [0.5, 0.25]} for i in range(12)]
    Dataset.from_list(own).save_to_disk(str(run / "scores" / "ig" / "train"))
    lists = {"top_index": [5, 4], "top_score": [0.2, 0.1], "bottom_index": [1], "bottom_score": [-0.3]}
    built = [
        {
            "index": i,
            "role": "value",
            "unit_kind": "neuron",
            "site": "ffn",
            "layer": 2,
            "unit": 7 + u,
            "contribution": 0.25,
            **lists,
        }
        for i in range(3)
        for u in range(2)
    ]
    folder = run / "scores" / "data_of_neurons"
    Dataset.from_list(built).save_to_disk(str(folder / "test"))
    (folder / "method.yaml").write_text("name: data_of_neurons\nunit: nats\n")
    data = island(write_report(run).read_text(encoding="utf-8"))
    (method,) = [one for one in data["methods"] if one["kind"] == "unit"]
    assert len(method["row"]) == 6
    assert {data["units"]["key"][unit] for unit in method["unit"]} == {"ffn.2.7", "ffn.2.8"}
    assert [data["train"]["index"][at] for at in method["top"]["at"][:2]] == [5, 4]
    assert all("what the unit adds to" in said and "(0.25 nats)" in said for said in method["target"])
    (ig,) = data["own"]
    assert [data["units"]["key"][at] for at in ig["top"]["at"][:4]] == ["ffn.1.0", "ffn.2.7", "ffn.1.1", "ffn.2.7"]
