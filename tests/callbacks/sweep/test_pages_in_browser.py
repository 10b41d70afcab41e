"""sweep.html and comparison.html in a browser: crossing, files, width; no request, no complaint, no barrier."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, downloaded, no_barrier, shows, until
from tests.callbacks.sweep.test_comparison_page import two_runs
from tests.callbacks.sweep.test_sweep_page import FAULT, written_sweep
from twinlens.callbacks.sweep.comparison_page import write_comparison

pytestmark = pytest.mark.usefixtures("quiet_datasets")
OF_SWEEP = ("", "jobs", "numbers", "job=1", "job=4", "number=0", "evaluation=faithfulness&method=ig", "job=99")
OF_COMPARISON = ("", "numbers", "differing", "examples", "test=3", "test=999")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_sweep(tmp_path_factory.mktemp("browsed") / "sweep") / "sweep.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browsed")
    return write_comparison(two_runs(folder), folder / "out")


def test_from_a_number_to_a_job_to_its_report_and_back(opened: Browser, sweep: Path) -> None:
    page = opened.open(sweep, "numbers")
    page.get_by_label("Search by words").fill("comprehensiveness 100 ig")
    until(page, "document.querySelector('#numbers output').textContent.startsWith('1 of')")
    page.get_by_role("link", name="comprehensiveness @100").click()
    until(page, "document.querySelector('#one h2')?.textContent.includes('comprehensiveness @100')")
    assert "34.8 ± 1.8" in page.inner_text("#one")  # damping=0.1, as the verdict says of the rest
    page.get_by_role("link", name="job 1", exact=True).click()
    shows(page, "Job 1")
    assert page.get_by_role("link", name="its report").get_attribute("href") == "1/report.html"
    page.go_back()
    until(page, "document.querySelector('#one h2')?.textContent.includes('comprehensiveness @100')")


def test_lists_of_two_runs_stand_side_by_side(opened: Browser, comparison: Path) -> None:
    page = opened.open(comparison, "examples")
    page.get_by_role("link", name="test 3", exact=True).click()
    shows(page, "Test example 3")
    first, second = (page.locator(f"[data-lens=instance] [data-run={letter}]") for letter in "AB")
    listed = [one.locator("li").evaluate_all("all => all.map((one) => one.dataset.index)") for one in (first, second)]
    both = {*map(int, listed[0])} & {*map(int, listed[1])} - {28, 29}  # which have another text in each run
    share = f"A and B share {10 * len(both)} % of their first 10."
    assert share in page.inner_text("[data-lens=instance]")
    twin = first.locator("li").first
    assert twin.get_by_role("link").get_attribute("href").endswith("one/report.html#train=3&from=3")
    assert "also B #1" in twin.inner_text()
    page.locator("#one .steps a").first.click()
    until(page, "document.querySelector('#one h2')?.textContent !== 'Test example 3'")


@pytest.mark.long
def test_tables_and_figures_are_saved(opened: Browser, sweep: Path, comparison: Path) -> None:
    page = opened.open(sweep, "number=0")
    page.wait_for_selector("#one .canvas[data-drawn]")
    figure = page.locator("#one figure")
    assert "damping=1" in downloaded(page, figure.get_by_role("button", name="SVG"))
    numbers = list(csv.reader(io.StringIO(downloaded(page, figure.get_by_role("button", name="CSV")))))
    assert numbers[0] == ["setting", "job", "seed", "value", "error"]
    assert [line[:3] for line in numbers[1:]] == [
        ["damping=0.1", "0", "0"], ["damping=0.1", "1", "1"], ["damping=1", "2", "0"], ["damping=1", "3", "1"],
    ]  # fmt: skip
    page = opened.open(comparison, "numbers")
    table = list(csv.reader(io.StringIO(downloaded(page, page.locator("#numbers button", has_text="CSV")))))
    assert table[0][:7] == ["Metric", "Method", "Evaluation", "Of", "A", "B", "B − A"]


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_in_any_view(opened: Browser, sweep: Path, comparison: Path, scheme: str) -> None:
    for path, views in ((sweep, OF_SWEEP), (comparison, OF_COMPARISON)):
        page: Any = opened.open(path, color_scheme=scheme)
        for view in views:
            no_barrier(page, view)


@pytest.mark.long
@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_sticks_out_and_texts_are_texts(opened: Browser, sweep: Path, comparison: Path, width: int) -> None:
    for path, views in ((sweep, OF_SWEEP), (comparison, OF_COMPARISON)):
        page = opened.open(path, viewport={"width": width, "height": 900})
        for view in views:
            page.goto(f"{page.url.partition('#')[0]}#{view}")
            page.wait_for_timeout(50)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            assert page.locator("main script, main img[src=x]").count() == 0
    page = opened.open(sweep, "job=4")
    assert FAULT in page.inner_text("#one")
