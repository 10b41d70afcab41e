"""report.html: what it says, that it is self-contained, and that no text on it is ever run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import load_from_disk

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import MARKUP, Page, island, listed
from twinlens.callbacks.report.chosen_examples import choose_examples
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun().write(tmp_path_factory.mktemp("report") / "run")


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


def test_what_was_found_comes_first(page: Page) -> None:
    verdict = "ig changes 67\N{NO-BREAK SPACE}% of predictions with 100 neurons, random_neurons 42\N{NO-BREAK SPACE}%."
    words = " ".join(page.text)
    assert verdict in words
    assert words.index(verdict) < words.index("Results")


def test_an_example_keeps_its_text_prediction_and_both_lenses_in_order(run: Path, html: str) -> None:
    index, data = choose_examples(RunFiles(run), 40)[0], island(html)
    place = data["tests"]["index"].index(index)
    row = load_from_disk(str(run / "examples" / "test"))[index]
    assert row["claim"] == data["tests"]["texts"][data["tests"]["columns"].index("claim")][place]
    names = ["Supported", "Refuted", "Not Enough Evidence"]
    assert data["tests"]["prediction"][place] == names[row["prediction"]]
    assert data["tests"]["prob"][place] == pytest.approx(row["prob"][row["prediction"]])
    methods = {method["name"]: method for method in data["methods"]}
    for name in ("gradsim", "influence"):
        scores = load_from_disk(str(run / "scores" / name / "test"))[index]
        for end in ("top", "bottom"):
            at, found = zip(*listed(methods[name], place, end), strict=True)
            assert [data["train"]["index"][train] for train in at] == scores[f"{end}_index"]
            assert found == pytest.approx(scores[f"{end}_score"], rel=1e-6)
    neurons = load_from_disk(str(run / "scores" / "ig" / "test"))[index]
    at, found = zip(*listed(methods["ig"], place), strict=True)
    pairs = zip(neurons["layer"], neurons["unit"], strict=True)
    assert [data["units"]["key"][unit] for unit in at] == [f"ffn.{layer}.{unit}" for layer, unit in pairs]
    assert found == pytest.approx(neurons["score"], rel=1e-6)


def test_all_examples_are_kept_wrong_ones_first(run: Path, html: str) -> None:
    verdicts = island(html)["tests"]["verdict"]
    examples = load_from_disk(str(run / "examples" / "test"))
    n_wrong = sum(
        label != prediction for label, prediction in zip(examples["label"], examples["prediction"], strict=True)
    )
    assert verdicts == [2] * n_wrong + [1] * (40 - n_wrong)
    assert choose_examples(RunFiles(run), 20) == choose_examples(RunFiles(run), 20)


def test_wrong_predictions_come_most_confident_first(run: Path) -> None:
    examples = load_from_disk(str(run / "examples" / "test"))
    chosen = [examples[i] for i in choose_examples(RunFiles(run), 20)]
    prob = [row["prob"][row["prediction"]] for row in chosen if row["prediction"] != row["label"]]
    assert prob == sorted(prob, reverse=True)


def test_plants_are_marked_and_twins_name_each_other(html: str) -> None:
    data = island(html)
    assert [place for place, twin in enumerate(data["train"]["twin"]) if twin >= 0] == list(range(10))
    assert data["train"]["twin"][3] == 30 == data["train"]["source"][3]
    assert any("wrong label" in marks for marks in data["train"]["marks"])


def test_training_texts_are_kept_whole_and_once(html: str, run: Path) -> None:
    train, data = load_from_disk(str(run / "examples" / "train")), island(html)["train"]
    assert data["texts"][data["columns"].index("evidence")] == train["evidence"][:]
    assert html.count(train[0]["evidence"]) == 0


def test_every_link_has_its_target(page: Page) -> None:
    ids = {value for _, attrs in page.tags if (value := attrs.get("id")) is not None}
    all_ids = [value for _, attrs in page.tags if (value := attrs.get("id")) is not None]
    assert len(all_ids) == len(ids)
    assert {link[1:] for link in page.attributes("a", "href")} <= ids


def test_page_is_self_contained(html: str, page: Page) -> None:
    assert not re.search(r"https?://|//[a-z]+\.", re.sub(r"<script type=\"text/plain\".*?</script>", "", html))
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("img", "src"))
    assert all(link.startswith("#") for link in page.attributes("a", "href"))
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "form", "base")]
    assert len(html.encode()) < 3_000_000


def test_policy_allows_the_one_script_and_nothing_else(page: Page) -> None:
    policy = page.attributes("meta", "content")[0]
    library = gzip.decompress(base64.b64decode(page.content["data"][1]))
    scripts = ["".join(page.content["script"]).encode(), library]
    digests = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts]
    assert f"script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}';" in policy
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
    assert not [attrs for _, attrs in page.tags if "style" in attrs]


def test_texts_beyond_the_page_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlens.callbacks.report.example_text.MAX_CHARACTERS", 50_000)
    run = FakeRun(evidence_words=200, n_train=40, n_test=4, instance=("gradsim",)).write(tmp_path)
    train = island(write_report(run).read_text(encoding="utf-8"))["train"]
    assert train["cut"] == 1000
    assert all(text.endswith("more characters in the run's files]") for text in train["texts"][1])


def test_the_same_files_give_the_same_page(run: Path, html: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == html
    assert json.loads((run / "metrics.json").read_text()) == FakeRun().metrics()
    assert not list(run.rglob("*.partial"))
