"""report.html: what it says, that it is self-contained, and that no text on it is ever run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import load_from_disk

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import MARKUP, Page, articles
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


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    run = FakeRun(evidence_words=2000, n_train=40, instance=("gradsim",)).write(tmp_path)
    path = write_report(run)
    assert path.stat().st_size < 3_000_000
    assert "more characters in the run's files]" in Page(path.read_text(encoding="utf-8")).words


def test_the_same_files_give_the_same_page(run: Path, html: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == html
    assert json.loads((run / "metrics.json").read_text()) == FakeRun().metrics()
    assert not list(run.rglob("*.partial"))
