"""Views of a prompt, of certificates and of what built a neuron: data of the page, and what a browser shows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset

from tests.browser import Browser, no_barrier, shows
from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import Page, island, rewrite
from tests.callbacks.report.test_explorer import HOSTILE, rendered
from tests.callbacks.report.test_prompts import prompt_rows, record
from twinlens.attribution.errors import UserError
from twinlens.callbacks.evaluate.certificate import COLUMNS
from twinlens.callbacks.report.page import render_report
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.results.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("quiet_datasets")
N_TRAIN, N_TEST = 12, 4
VIEWS = ("prompts", "prompt=0", "prompt=0&token=2", "test=0&method=ia", "test=0&method=ig&token=2", "train=5",
         "neuron=ffn.1.7")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a prompt of two tokens, a certificate, and every bridge; its tokens and texts are hostile."""
    path = FakeRun(
        neuron=("ig",), instance=("gradsim",), n_train=N_TRAIN, n_test=N_TEST, n_layers=2, list_length=5, plants=False
    ).write(tmp_path_factory.mktemp("crossed") / "run")
    write_prompt(path)
    write_bridges(path)
    write_certificate(path)
    return path


def write_prompt(path: Path) -> None:
    evil = HOSTILE["markup"]
    rows = [*prompt_rows(words=(evil, HOSTILE["direction"])), *prompt_rows("0.1", evil, (HOSTILE["emoji"][:-1], ""))]
    write_results(path / "results.csv", [*read_results(path / "results.csv"), *rows])
    record(path, {1: evil, 2: "", 3: HOSTILE["direction"]}, n_tokens=2)
    rewrite(path, "test", lambda row: row | {"input_ids": [0, 1, 2], "answer_ids": [3, 1], "claim": evil})


def write_bridges(path: Path) -> None:
    """`ia`: the best neurons of gradsim's instances; what built units, and which units instances built."""
    scores = path / "scores"
    unit = {"role": "value", "unit_kind": "neuron", "site": "ffn"}
    rows = [
        {"index": i, "target": 0, "layer": [1, 1], "unit": [7, 8], "score": [0.5, 0.25],
         **{name: [value] * 2 for name, value in unit.items()}, "token": [[0.1, 0.4], [0.2, 0.05]]}
        for i in range(N_TEST)
    ]  # fmt: skip
    for name, said in (("ia", {"source": "gradsim", "neurons": "ig", "dedup": False}), ("ig", {})):
        for file in (scores / name / "test").glob("*"):
            file.unlink()
        Dataset.from_list(rows).save_to_disk(str(scores / name / "test"))
        (scores / name / "method.yaml").write_text(yaml.safe_dump({"name": name, "unit": "nats", **said}))
    lists = {"top_index": [5, 4], "top_score": [0.2, 0.1], "bottom_index": [1], "bottom_score": [-0.3]}
    built = [{"index": i, **unit, "layer": 1, "unit": 7, "contribution": 0.25, **lists} for i in range(N_TEST)]
    Dataset.from_list(built).save_to_disk(str(scores / "data_of_neurons" / "test"))
    turned = [{"index": i, "layer": [1], "unit": [7], "score": [0.5], "explained": [2]} for i in range(N_TRAIN)]
    Dataset.from_list(turned).save_to_disk(str(scores / "neurons_of_data" / "train"))
    for name in ("data_of_neurons", "neurons_of_data"):
        (scores / name / "method.yaml").write_text(yaml.safe_dump({"name": name, "functional": "contribution"}))


def write_certificate(path: Path) -> None:
    rows = read_results(path / "results.csv")
    common = {**rows[0], "evaluation": "certificate", "method": "gradsim+ig", "k": 3, "n": N_TEST, "group": "joint",
              "reference_group": "refit", "variant": "ablated=2;level=0.8", "stderr": None}  # fmt: skip
    rows += [common | {"metric": "certificate_coverage", "value": 75.0, "low": 30.1, "high": 95.4},
             common | {"metric": "certificate_pearson", "value": 0.5, "low": 0.2, "high": 0.7}]  # fmt: skip
    write_results(path / "results.csv", rows)
    with (path / "certificate_examples.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for part in ("instances", "neurons", "sum", "joint"):
            writer.writerow([0, 1, "refit", part, -0.25, -0.5, 0.125, 0.75, "false"])


@pytest.fixture(scope="module")
def data(run: Path) -> dict[str, Any]:
    return island(render_report(RunFiles(run)))


def test_lists_say_where_their_neurons_are_from(data: dict[str, Any]) -> None:
    methods = {one["name"]: one for one in data["methods"]}
    assert methods["ia"]["source"] == {"name": "gradsim", "dedup": False}
    assert methods["ig"]["source"] is None
    (own,) = data["own"]
    assert (own["name"], own["built"]) == ("neurons_of_data", True)
    assert own["explained"] == [data["tests"]["index"].index(2)] * N_TRAIN


def test_shares_of_tokens_stand_beside_each_entry(data: dict[str, Any]) -> None:
    (ig,) = [one for one in data["methods"] if one["name"] == "ig"]
    assert ig["token"]["width"] == 2
    assert ig["token"]["share"][:4] == pytest.approx([0.1, 0.4, 0.2, 0.05])


def test_a_certificate_is_told_and_kept_line_by_line(run: Path, data: dict[str, Any]) -> None:
    (one,) = data["certificates"]
    assert {name: one[name] for name in ("name", "methods", "removed", "ablated", "level")} == {
        "name": "certificate", "methods": "gradsim and ig", "removed": 3, "ablated": 2, "level": 0.8,
    }  # fmt: skip
    place = str(data["tests"]["index"].index(0))
    assert one["lines"][place][3] == ["joint", "refit", -0.25, -0.5, 0.125, 0.75, False]
    said = Page(render_report(RunFiles(run))).words
    assert "Without the first 3 instances and 2 neurons of gradsim and ig, 75" in said
    assert "change within their 80" in said
    path = run / "certificate_examples.csv"
    whole = path.read_text()
    path.write_text(whole.replace("-0.25", "much", 1))
    with pytest.raises(UserError, match=r"line 2 of .*certificate_examples\.csv cannot be read"):
        render_report(RunFiles(run))
    path.write_text(whole)


@pytest.fixture
def page(opened: Browser, run: Path) -> Iterator[Any]:
    """The page at the prompt."""
    shown = opened.open(rendered(run), "prompt=0", viewport={"width": 400, "height": 900})
    yield shown
    shown.close()


def test_a_prompt_is_stepped_through_and_its_record_is_shown(page: Any) -> None:
    """Narrow, and with hostile tokens: keys, a link, a button, and text as text in every view."""
    first, second = (f"Prompt 0, token {number} of its completion" for number in (1, 2))
    shows(page, first)
    page.keyboard.press("ArrowRight")
    shows(page, second)
    assert "token=2" in page.url
    page.keyboard.press("ArrowLeft")
    shows(page, first)
    assert "for 1 listed neuron," in page.inner_text("#one .note")
    button = page.get_by_role("button", name="f1.7 set to ×2, as recorded")
    assert button.inner_text() == "×2 −2.00"  # from −0.5 to −2.5 nats
    button.click()
    page.wait_for_selector("#one .recorded:not(:empty)")
    assert "60.7\u00a0% → 8.2\u00a0%" in page.inner_text("#one .recorded")
    assert HOSTILE["markup"] in page.inner_text("#one .recorded")
    for view in VIEWS:
        Browser.move(page, view)
        assert page.evaluate("window.hacked") is None
        assert page.locator("main script, main img[src=x]").count() == 0, view
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), view


@pytest.mark.long
def test_bridges_lead_from_a_neuron_to_its_instances_and_back(page: Any) -> None:
    Browser.move(page, "test=0&method=ia")
    line = page.locator("section[data-method=ia] li[data-unit='ffn.1.7']")
    assert "best neuron of (gradsim)" in line.inner_text()
    assert "built by (data_of_neurons) train 5, train 4" in line.inner_text()
    line.get_by_role("link", name="train 5").first.click()
    shows(page, "Train instance 5")
    built = page.locator("section[data-method=neurons_of_data]")
    assert "for test 2" in built.inner_text()
    assert page.get_by_text("Neurons that it built, by data_of_neurons").is_visible()
    built.get_by_role("link", name="L1 · 7").click()
    shows(page, "Neuron L1 · 7")
    shown = page.inner_text("#one")
    assert "The data that built it, by data_of_neurons" in shown
    assert "Training instances that built it more than other units, by neurons_of_data" in shown
    assert "Prompts that list it" in shown
    page.go_back()
    shows(page, "Train instance 5")
    Browser.move(page, "test=0&method=ig&token=2")
    section = page.locator("section[data-method=ig] .list")
    assert section.locator("li").first.inner_text().startswith("1")
    assert "0.400" in section.locator("li").first.inner_text()
    certificate = page.inner_text("section[data-certificate]")
    assert "both at once" in certificate
    assert "−0.500 to 0.125" in certificate


@pytest.mark.long
def test_no_barrier_in_the_crossed_views(page: Any) -> None:
    for view in VIEWS:
        no_barrier(page, view)


@pytest.mark.long
def test_what_is_printed_has_all_rows_and_the_screen_few(page: Any) -> None:
    page.set_viewport_size({"width": 1000, "height": 600})
    Browser.move(page, "instances")
    rows = "document.querySelectorAll('#instances tbody tr').length"
    count = "document.querySelectorAll('#instances .window')[0]"
    page.evaluate(f"{count}.style.maxHeight = '100px'")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(rows) == N_TRAIN
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(rows) <= N_TRAIN
