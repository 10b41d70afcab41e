"""Views of a run: frames in a notebook, tables where scripts are off and in a terminal."""

from __future__ import annotations

import base64
import gzip
import html
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from datasets import load_from_disk

import twinlens
from tests.browser import Browser, until
from tests.callbacks.fake_run import FakeRun
from twinlens.callbacks.processes.terminal import notebook_bars, on_terminal
from twinlens.notebook_cells import in_notebook

MOST_BYTES = 200_000
"""Of a view without figures."""
HOSTILE = "<script>parent.hacked = 1</script><b>&amp;"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> twinlens.Run:
    fake = FakeRun(n_train=30, n_test=12, evidence_words=5, marker=HOSTILE)
    return twinlens.open(fake.write(tmp_path_factory.mktemp("shown") / "run"))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A kernel of Jupyter, and what it displays."""
    displayed: list[dict[str, str]] = []
    python, display = ModuleType("IPython"), ModuleType("IPython.display")
    python.get_ipython = lambda: SimpleNamespace(kernel=None)  # type: ignore[attr-defined]
    display.display = lambda made, raw: displayed.append(made)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return displayed


def page_in(made: str) -> str:
    """The page that a frame carries."""
    (frame,) = re.findall(r'srcdoc="([^"]*)"', made)
    (packed,) = re.findall(r'id="page">([^<]*)<', html.unescape(frame))
    return gzip.decompress(base64.b64decode(packed)).decode()


def test_a_terminal_gets_tables(run: twinlens.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    run.show()
    assert "faithfulness" in capsys.readouterr().out
    run.show(test=3, method="ig", top=2)
    lines = capsys.readouterr().out.splitlines()
    stored = load_from_disk(str(run.path / "scores" / "ig" / "test"))[3]
    assert lines[0].startswith("query 3: test 3: ")
    assert lines[2].split() == ["rank", "score", "layer", "site", "unit"]
    assert [line.split()[0::2] for line in lines[3:]] == [
        [str(rank + 1), str(stored["layer"][rank]), str(stored["unit"][rank])] for rank in range(2)
    ]
    first = next(run.scores["gradsim"].rows())
    run.show(train=first["index"])
    told = capsys.readouterr().out
    assert told.startswith(f"train {first['index']}: ")
    assert re.search(r"\n +0 .* gradsim +1 ", told)
    neuron = next(run.scores["ig"].neurons())
    run.show(neuron=neuron.key)
    assert f"neuron {neuron.key} stands in" in capsys.readouterr().out


def test_a_train_instance_is_found_at_either_end(run: twinlens.Run) -> None:
    rows = list(run.scores["influence"].rows(bottom=True))
    wanted = rows[0]["index"]
    named = [(row["query"], row["rank"]) for row in rows if row["index"] == wanted]
    assert [(row["query"], row["rank"]) for row in run.scores["influence"].naming(wanted)] == named
    assert min(rank for _, rank in named) < 0 < max(rank for _, rank in named)


def test_a_notebook_gets_a_frame_with_tables_beside_it(run: twinlens.Run, notebook: list[dict[str, str]]) -> None:
    run.show(test=3, instances="influence", lens="instance")
    (shown,) = notebook
    assert shown["text/plain"].startswith("query 3: ")
    made = shown["text/html"]
    assert 'sandbox="allow-scripts allow-downloads"' in made
    assert "<table" in made.partition("</iframe>")[2]
    assert len(made) < MOST_BYTES
    page = page_in(made)
    assert 'data-start="test=3&amp;instances=influence&amp;lens=instance"' in page
    assert 'id="library"' not in page
    run.show("overview", figures=True)
    assert 'id="library"' in page_in(notebook[1]["text/html"])


def test_what_stands_for_itself(run: twinlens.Run) -> None:
    made = {"overview": run._repr_html_(), "test=0&method=ig&lens=neuron": run.scores["ig"]._repr_html_()}
    neuron = next(run.scores["ig"].neurons())
    made[f"neuron={neuron.key}"] = neuron._repr_html_()
    for start, shown in made.items():
        assert f'data-start="{html.escape(start)}"' in page_in(str(shown))
    assert "<table" in run.compare(run)._repr_html_()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"test": 99}, "no test example 99; expected one of its 12, from 0 to 11"),
        ({"train": "a"}, "no train example a"),
        ({"neuron": "ffn.99.1"}, "no list of the run names the neuron ffn.99.1"),
        ({"view": "exemples"}, "no view exemples; expected one of overview"),
        ({"test": 1, "train": 2}, "asked for test and train; expected one view"),
        ({"test": 1, "method": "igg"}, "no scores of igg"),
        ({"test": 1, "lens": "neurons"}, "lens=neurons"),
    ],
)
def test_what_is_not_there_is_refused(run: twinlens.Run, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(twinlens.UserError) as refused:
        run.show(**asked)
    assert said in str(refused.value)


def test_bars_are_a_notebooks_only_inside() -> None:
    with notebook_bars():
        assert on_terminal()
    assert not on_terminal()


@pytest.fixture
def page(run: twinlens.Run, tmp_path: Path, notebook: list[dict[str, str]]) -> Path:
    """A notebook of two cells, with a style that must not reach into them."""
    run.show(test=3)
    run.show(neuron=next(run.scores["ig"].neurons()).key)
    cells = "".join(cell["text/html"] for cell in notebook)
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><style>h2 {{ display: none }}</style>{cells}", "utf-8")
    return path


def test_views_work_side_by_side(opened: Browser, page: Path) -> None:
    shown = opened.open(page, ready="iframe.twinlens-view[style*='1px']")
    until(shown, "[...document.querySelectorAll('iframe')].every((one) => one.clientHeight > 100)")
    assert shown.locator(".twinlens-plain:visible").count() == 0
    one, other = (shown.frame_locator("iframe").nth(number) for number in (0, 1))
    heading = one.locator("#one h2")
    assert heading.inner_text() == "Test example 3"
    assert heading.is_visible()
    assert other.locator("#one h2").inner_text().startswith("Neuron ")
    one.locator("section[data-method=ig] .list a").first.click()
    one.locator("#one h2", has_text="Neuron ").wait_for()
    one.get_by_role("button", name="← Back").click()
    one.locator("#one h2", has_text="Test example 3").wait_for()
    one.locator("select").last.select_option("random_neurons")
    one.locator("section[data-method=random_neurons]").wait_for()
    assert shown.evaluate("[location.hash, window.hacked]") == ["", None]


def test_without_scripts_there_are_tables(chromium: Browser, page: Path) -> None:
    opened = chromium.open(page, ready=".twinlens-plain", java_script_enabled=False)
    assert opened.locator(".twinlens-plain table:visible").count() >= 4
    assert opened.locator("iframe").first.bounding_box()["height"] == 0
    assert "<script>" in opened.locator(".twinlens-plain").first.inner_text()
