"""report.html: what it says, that it is self-contained, and that no text on it is ever run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, disable_progress_bars, enable_progress_bars, load_from_disk

from attribution.base import UserError
from callbacks.report import write_report
from callbacks.report_choice import choose_examples
from callbacks.report_data import RunFiles
from tests.callbacks.fake_run import FakeRun

MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"


class Page(HTMLParser):
    """Tags with their attributes and enclosing text; raises on an element that is closed but not open."""

    VOID = frozenset({"meta", "img", "input", "br", "wbr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.content: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.content.get(inside, self.text).append(data)

    def attributes(self, tag: str, name: str) -> list[str]:
        return [value for found, attrs in self.tags if found == tag and (value := attrs.get(name)) is not None]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun().write(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run without a report, to be copied and damaged."""
    return FakeRun(n_train=40, n_test=12).write(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    path = write_report(run)
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    parsed = Page(html)
    assert parsed.open == []
    return parsed


def articles(html: str, index: int) -> list[str]:
    return re.findall(rf'<article class="example" id="test-{index}".*?</article>', html, re.S)


def test_title_results_and_reports_are_there(page: Page) -> None:
    words = page.words
    assert "tiny × demo · seed 0" in words
    assert "tiny was fine-tuned on 120 training examples of demo and read on 40 test examples." in words
    assert "training instances by gradsim, influence and random_instances" in words
    for value in ("0.765 ± 0.030", "61.5 ± 2.2", "0.930 ± 0.020", "sufficiency @100 ↑", "comprehensiveness @1 ↓"):
        assert value in words
    assert "test accuracy" in words
    assert "mrr @100 ↑" in words
    assert "cut text 7" in words
    assert "trainer" in words
    assert "optimizer.learning_rate 1e-05" in words


def test_an_example_shows_its_text_prediction_and_both_lenses_in_order(run: Path, html: str) -> None:
    index = choose_examples(RunFiles(run))[0]
    (whole,) = articles(html, index)
    part = Page(whole)
    row = load_from_disk(str(run / "examples" / "test"))[index]
    assert row["claim"] in part.words
    names = ["Supported", "Refuted", "Not Enough Evidence"]
    probability = f"{100 * row['prob'][row['prediction']]:.1f} %"
    assert f"Predicted {names[row['prediction']]} with {probability}" in part.words
    train = load_from_disk(str(run / "examples" / "train"))
    for method in ("gradsim", "influence"):
        scores = load_from_disk(str(run / "scores" / method / "test"))[index]
        block = re.search(rf'data-method="{method}".*?(?=data-method|</section>)', whole, re.S)
        assert block is not None
        shown = re.findall(r'<li data-index="(\d+)" data-score="([^"]+)"', block[0])
        wanted = list(zip(scores["top_index"][:5], scores["top_score"][:5], strict=True))
        wanted += list(zip(scores["bottom_index"][:3], scores["bottom_score"][:3], strict=True))
        assert [(int(i), float(s)) for i, s in shown] == wanted
        first = block[0][block[0].index("<li") : block[0].index("</li>") + 5]
        assert train[scores["top_index"][0]]["claim"] in Page(first).words
    neurons = load_from_disk(str(run / "scores" / "ig" / "test"))[index]
    found = re.findall(r'data-layer="(\d+)" data-unit="(\d+)" data-score="([^"]+)"', whole)[:10]
    assert [int(layer) for layer, _, _ in found] == neurons["layer"][:10]
    assert [int(unit) for _, unit, _ in found] == neurons["unit"][:10]
    assert [float(score) for _, _, score in found] == neurons["score"][:10]


def test_twenty_examples_mix_wrong_and_right_predictions(run: Path, html: str) -> None:
    verdicts = re.findall(r'data-verdict="(\w+)"', html)
    examples = load_from_disk(str(run / "examples" / "test"))
    n_wrong = sum(
        label != prediction for label, prediction in zip(examples["label"], examples["prediction"], strict=True)
    )
    assert len(verdicts) == 20
    assert verdicts.count("wrong") == min(10, n_wrong) > 0
    assert verdicts == sorted(verdicts, reverse=True)  # wrong ones first
    assert choose_examples(RunFiles(run)) == choose_examples(RunFiles(run))


def test_wrong_predictions_come_most_confident_first(run: Path) -> None:
    examples = load_from_disk(str(run / "examples" / "test"))
    chosen = [examples[i] for i in choose_examples(RunFiles(run))]
    prob = [row["prob"][row["prediction"]] for row in chosen if row["prediction"] != row["label"]]
    assert prob == sorted(prob, reverse=True)


def test_plants_are_marked_and_the_twin_of_an_example_is_named(run: Path, html: str) -> None:
    twins = [index for index in choose_examples(RunFiles(run)) if index < 10]
    assert twins
    for index in range(40):
        entries = re.findall(r"<li data-index.*?</li>", "".join(articles(html, index)), re.S)
        named = [re.findall(r"\d+", entry)[0] for entry in entries if "twin of this example" in entry]
        assert set(named) == ({str(index)} if index in twins else set())
    assert "wrong label" in Page(html).words


def test_training_texts_stand_in_full_once(html: str, run: Path) -> None:
    train = load_from_disk(str(run / "examples" / "train"))
    assert html.count(train[0]["evidence"]) <= 1
    listed = set(re.findall(r'data-train="(\d+)"', html))
    kept = re.findall(r'id="train-(\d+)"', html)
    assert len(kept) == len(set(kept))
    assert listed <= set(kept)


def test_every_link_has_its_target(page: Page) -> None:
    ids = {value for _, attrs in page.tags if (value := attrs.get("id")) is not None}
    all_ids = [value for _, attrs in page.tags if (value := attrs.get("id")) is not None]
    assert len(all_ids) == len(ids)
    assert {link[1:] for link in page.attributes("a", "href")} <= ids


def test_page_is_self_contained(html: str, page: Page) -> None:
    assert not re.search(r"https?://|//[a-z]+\.", html)
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("img", "src"))
    assert all(link.startswith("#") for link in page.attributes("a", "href"))
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "form", "base")]
    assert len(html.encode()) < 3_000_000


def test_policy_allows_the_one_script_and_nothing_else(page: Page) -> None:
    policy = page.attributes("meta", "content")[0]
    digest = base64.b64encode(hashlib.sha256("".join(page.content["script"]).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert len(page.attributes("script", "src")) == 0


def test_page_is_accessible_in_structure(html: str, page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in page.tags if tag == "th")
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert '<html lang="en">' in html


def test_markup_in_any_field_is_shown_and_never_run(tmp_path: Path) -> None:
    plain = Page(write_report(FakeRun().write(tmp_path / "plain")).read_text(encoding="utf-8"))
    run = FakeRun(marker=MARKUP).write(tmp_path / "marked")
    (run / "tables").mkdir()
    (run / "tables" / "<script>x.csv").write_text(f'"{MARKUP.replace(chr(34), chr(34) * 2)}",published\n<b>1</b>,2\n')
    (run / "figures").mkdir()
    (run / "figures" / "<img onerror=x>.png").write_bytes(b"not really a picture")
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    assert MARKUP in page.words  # shown as it is
    count = {tag: [t for t, _ in page.tags].count(tag) for tag in ("script", "img", "b", "style")}
    usual = {tag: [t for t, _ in plain.tags].count(tag) for tag in ("script", "img", "b", "style")}
    assert count == usual | {"img": usual["img"] + 1}  # the added figure
    handlers = [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert handlers == []
    assert page.content["script"] == plain.content["script"]  # no data in the script
    assert all(names <= {"v", "w", "layers", "column"} for names in map(_properties, _styles(page)))


def _styles(page: Page) -> list[str]:
    return [style for _, attrs in page.tags if (style := attrs.get("style")) is not None]


def _properties(style: str) -> set[str]:
    return set(re.findall(r"--(\w+):[\d.]+(?:rem)?", style)) if re.fullmatch(r"[-\w:.; ]+", style) else {style}


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


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.json", "results.csv", "examples/train", "scores/ig/method.yaml"]
)
def test_a_missing_file_is_named(whole: Path, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / name).rename(tmp_path / "away")
    with pytest.raises(UserError, match=f"{name} is missing"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "- just\n- a list\n"),
        ("metrics.json", '{"accuracy": '),
        ("metrics.json", '{"accuracy": "high"}'),
        ("model/config.json", '{"id2label": {"zero": "a"}}'),
        ("scores/ig/method.yaml", "\x00"),
        ("scores/ig/test/dataset_info.json", "{"),
        ("scores/gradsim/test/data-00000-of-00001.arrow", "no arrow"),
        ("examples/test/state.json", "[]"),
    ],
)
def test_a_damaged_file_is_named(whole: Path, tmp_path: Path, name: str, content: str) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / name).write_text(content, encoding="utf-8")
    folder = str(Path(name).parent) if "dataset_info" in name or "arrow" in name or "state" in name else name
    with pytest.raises(UserError, match=re.escape(folder)):
        write_report(run)


def test_scores_of_absent_training_instances_are_named(tmp_path: Path) -> None:
    run = FakeRun(instance=("gradsim",), summary=False).write(tmp_path)
    shorter = load_from_disk(str(run / "examples" / "train")).select(range(5))
    Dataset.from_list(shorter.to_list()).save_to_disk(str(run / "examples" / "other"))
    (run / "examples" / "train").rename(run / "examples" / "old")
    (run / "examples" / "other").rename(run / "examples" / "train")
    with pytest.raises(UserError, match=r"examples/train has no example \d+ that scores name"):
        write_report(run)


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=()).write(tmp_path)
    Dataset.from_dict({"index": [0]}).save_to_disk(str(run / "other"))
    (run / "scores" / "ig" / "test").rename(run / "old")
    (run / "other").rename(run / "scores" / "ig" / "test")
    with pytest.raises(UserError, match="has no column layer, unit, score but index"):
        write_report(run)


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    run = FakeRun(evidence_words=2000, n_train=40, instance=("gradsim",)).write(tmp_path)
    path = write_report(run)
    assert path.stat().st_size < 3_000_000
    assert "more characters in the run's files]" in Page(path.read_text(encoding="utf-8")).words


def test_the_same_files_give_the_same_page(run: Path, html: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == html
    assert json.loads((run / "metrics.json").read_text()) == FakeRun().metrics()
    assert not list(run.rglob("*.partial"))
