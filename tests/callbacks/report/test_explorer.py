"""report.html in a browser: search, crossing, links, themes, files, bounds; no request, no complaint, no barrier."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from datasets import Dataset, load_from_disk

from benchmarks.large_run import N_TEST, N_TRAIN, write_large_run
from tests.browser import Browser, downloaded, no_barrier, shows
from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import rewrite
from twinlens.callbacks.report.page import render_report
from twinlens.callbacks.results.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("quiet_datasets")
MOST_BYTES = 15_000_000
MOST_ELEMENTS = 5000
MOST_ROWS_PER_LETTER = 60
VIEWS = ("", "examples", "instances", "units", "settings", "test=3&method=ig", "train=3&from=3")
HOSTILE = {
    "markup": "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>&amp;{{ 7*7 }}",
    "direction": "\u202eevil\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "long": "".join(f"word{i:04d} " for i in range(1000)) + "the end",
    "emoji": "\U0001f469\u200d\U0001f52c \U0001f1e9\U0001f1ea \ufe0f\u0301 \ud83d",
    "nothing": "",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = FakeRun(paper=True, n_train=60, n_test=30, evidence_words=2).write(
        tmp_path_factory.mktemp("explored") / "run"
    )
    for split in ("train", "test"):
        rewrite(run, split, lambda row: row | ({"claim": "Photosynthesis needs light."} if row["index"] == 7 else {}))
    own = [{"index": i, "layer": [1, 2], "unit": [i, 7], "score": [0.5, 0.25]} for i in range(60)]
    Dataset.from_list(own).save_to_disk(str(run / "scores" / "ig" / "train"))
    return rendered(run)


def rendered(run: Path) -> Path:
    """The page alone: tables and figures as PNG have tests of their own."""
    path = run / "report.html"
    path.write_text(render_report(RunFiles(run)), encoding="utf-8")
    return path


def elements(page: Any) -> int:
    return int(page.evaluate("document.querySelectorAll('*').length"))


def test_search_open_cross_and_back(opened: Browser, report: Path) -> None:
    """From a word to an example, to its first instance, to that instance's neuron, to a text; then Back all the way."""
    page = opened.open(report, "examples")
    assert "30 of 30 examples" in page.inner_text("#examples output")
    page.get_by_label("Search by words").fill("light photo")
    assert "1 of 30 examples" in page.inner_text("#examples output")
    page.get_by_role("link", name="test 7", exact=True).click()
    shows(page, "Test example 7")
    assert page.evaluate("document.activeElement.textContent") == "Test example 7"  # a screen reader reads on from here
    first = page.locator("section[data-method=gradsim] .list a").first
    assert first.inner_text() == "train 7"  # the planted twin
    assert "twin of this example" in page.inner_text("section[data-method=gradsim] .list li:first-child")
    first.click()
    shows(page, "Train instance 7")
    assert page.locator("#one mark.shared").all_inner_texts() == ["Photosynthesis", "needs", "light"]
    page.locator("#one .inline a").first.click()
    shows(page, "Neuron L1 · 7")
    assert "train 7" in page.inner_text("#one .virtual >> nth=1")
    for heading in ("Train instance 7", "Test example 7"):
        page.go_back()
        shows(page, heading)
    page.go_back()
    page.wait_for_selector("#examples")


def test_a_permalink_opens_what_it_names(opened: Browser, report: Path) -> None:
    page = opened.open(report, "test=17&method=random_neurons&instances=influence")
    shows(page, "Test example 17")
    assert [page.locator("#one select").nth(i).input_value() for i in (0, 1)] == ["influence", "random_neurons"]
    page.locator("#one select").nth(0).select_option("gradsim")
    page.wait_for_url(re.compile("#.*instances=gradsim"))
    assert "method=random_neurons" in page.url
    Browser.move(page, "test=999")
    assert "no test example 999" in page.inner_text("#one")
    Browser.move(page, "layers")
    assert page.is_visible("#layers")


def test_keys_alone_reach_everything(opened: Browser, report: Path) -> None:
    page = opened.open(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.get_by_role("link", name="Examples", exact=True).press("Enter")
    page.get_by_label("Search by words").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#examples tbody a')"):
            break
    name = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    shows(page, f"Test example {name.split()[1]}")


@pytest.mark.long
def test_themes_change_colours_and_figures(opened: Browser, report: Path) -> None:
    page = opened.open(report, "test=3&method=ig", color_scheme="light")
    page.locator("#one .canvas").scroll_into_view_if_needed()
    page.wait_for_selector("#one .canvas[data-drawn]")

    def colours() -> tuple[str, str]:
        ink = "getComputedStyle(document.querySelector('#one .canvas .xtick text')).fill"
        return page.evaluate("getComputedStyle(document.body).backgroundColor"), page.evaluate(ink)

    light = colours()
    button = page.get_by_role("button", name="Theme")
    button.click()
    button.click()
    assert button.inner_text() == "Theme: dark"
    page.wait_for_selector("#one .canvas[data-drawn=dark]")
    assert colours()[1] != light[1]
    assert colours()[0] != light[0]


@pytest.mark.long
def test_tables_and_figures_are_saved(opened: Browser, report: Path) -> None:
    page = opened.open(report, "test=3&method=ig")
    page.locator("summary", has_text="kept entries").first.click()
    saved = downloaded(page, page.locator("#one .listing button", has_text="CSV").first)
    lines = list(csv.reader(io.StringIO(saved)))
    scores = load_from_disk(str(report.parent / "scores" / "gradsim" / "test"))[3]
    assert lines[0][:4] == ["Instance", "End", "Rank", "Score"]
    assert [int(line[0]) for line in lines[1:21]] == scores["top_index"]
    assert [float(line[3]) for line in lines[1:21]] == pytest.approx(scores["top_score"], rel=1e-6)
    figure = page.locator("#one figure")
    image = ElementTree.fromstring(downloaded(page, figure.get_by_role("button", name="SVG")))
    assert image.tag.endswith("svg")
    assert "layer 0" in "".join(image.itertext())
    numbers = list(csv.reader(io.StringIO(downloaded(page, figure.get_by_role("button", name="CSV")))))
    assert numbers[0][0] == "layer"
    overview = opened.open(report)
    table = downloaded(overview, overview.locator("#results button", has_text="CSV").first)
    assert next(csv.reader(io.StringIO(table)))[:2] == ["method", "split"]


def test_no_barrier_in_an_example(opened: Browser, report: Path) -> None:
    no_barrier(opened.open(report), "test=3&method=ig")


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_in_any_view(opened: Browser, report: Path, scheme: str) -> None:
    page = opened.open(report, color_scheme=scheme)
    for view in (*VIEWS, "neuron=ffn.1.7", "test=999"):
        no_barrier(page, view)


def test_hostile_text_is_text_in_every_view(opened: Browser, tmp_path: Path) -> None:
    run = FakeRun(n_train=20, n_test=8, list_length=10, marker=HOSTILE["markup"], plants=False).write(tmp_path / "run")
    texts = list(HOSTILE.values())
    hostile = [text.encode("utf-8", "replace").decode() for text in texts]
    for split in ("train", "test"):
        rewrite(run, split, lambda row: row | dict.fromkeys(("claim", "evidence"), hostile[row["index"] % len(texts)]))
    page = opened.open(rendered(run))
    unit = load_from_disk(str(run / "scores" / "ig" / "test"))[0]
    views = [f"{kind}={i}" for kind in ("test", "train") for i in range(len(texts))]
    for view in (*VIEWS[:5], *views, f"neuron=ffn.{unit['layer'][0]}.{unit['unit'][0]}"):
        Browser.move(page, view)
        assert page.evaluate("window.hacked") is None
        assert page.locator("main script, main img[src=x]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), view  # nothing sticks out
        if view in views:
            place = int(view[-1])
            shown = page.evaluate("document.querySelector('#one .fields').textContent")
            wanted = texts[place].encode("utf-8", "replace").decode()
            assert (wanted or "(empty)")[:400] in shown
    assert HOSTILE["markup"] in page.inner_text("body")


@pytest.mark.long
@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_sticks_out(opened: Browser, report: Path, width: int) -> None:
    page = opened.open(report, viewport={"width": width, "height": 900})
    for view in (*VIEWS, "neuron=ffn.1.7"):
        Browser.move(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view


def test_a_large_run_stays_within_its_bounds(opened: Browser, tmp_path: Path) -> None:
    """500 examples by 2768 train rows by 6 methods: bytes, live elements, rows made for a typed letter."""
    run = write_large_run(tmp_path / "big")
    path = rendered(run)
    assert path.stat().st_size < MOST_BYTES
    page = opened.open(path)
    for view in VIEWS:
        Browser.move(page, view)
        assert elements(page) < MOST_ELEMENTS, view
    for view, noun, size in (("examples", "example", N_TEST), ("instances", "instance", N_TRAIN)):
        Browser.move(page, view)
        assert f"{size} of {size} {noun}s" in page.inner_text(f"#{view} output")
        touched = f"Number(document.querySelector('#{view} .window').dataset.touched)"
        for letter in "the":
            before = page.evaluate(touched)
            page.locator(f"#{view} input").press_sequentially(letter)
            assert page.evaluate(touched) - before <= MOST_ROWS_PER_LETTER
        assert elements(page) < MOST_ELEMENTS
