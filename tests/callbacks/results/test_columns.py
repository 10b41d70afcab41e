"""Files that can grow: columns and keys that a reader does not know or misses, and formats of later versions."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.results.test_results_csv import row
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation import result as result_module
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results import columns as columns_module
from twinlens.callbacks.results.columns import ABOUT, AXES, COLUMNS, NOT_WRITTEN, SETTINGS, Column, settings_text
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.run.folder import RunFolder
from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.callbacks.store.formats import FORMAT, METHOD_FORMAT, RUN_FORMAT, require_known_format
from twinlens.callbacks.store.manifest import damage_of, read_manifest, write_manifest

pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The columns when `Result` has two fields more, a text and a number; all else as it is."""

    @dataclasses.dataclass(frozen=True)
    class Grown(Result):
        style: str = ""
        spread: float | None = None

    monkeypatch.setattr(result_module, "Result", Grown)
    kept = forget_callbacks()
    yield Grown
    forget_callbacks()
    sys.modules.update(kept)
    for name, module in kept.items():  # packages hold their modules as attributes too
        package, _, child = name.rpartition(".")
        setattr(sys.modules[package], child, module)


def forget_callbacks() -> dict[str, ModuleType]:
    """Let modules of callbacks/ be imported anew; those that were."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("twinlens.callbacks.")}


def test_a_new_field_of_a_result_is_a_column_by_itself(grown: Any, tmp_path: Path) -> None:
    folder = importlib.import_module("twinlens.callbacks.run.folder").RunFolder(tmp_path)
    results = [grown("sufficiency", 61.0, k=1, method="ig"), grown("sufficiency", 58.5, k=1, method="ig",
               style="damping=0.1", spread=2.5)]  # fmt: skip
    folder.add_results("faithfulness", results, {"model": "tiny", "data": "demo", "seed": 0})
    folder.write()
    header = (tmp_path / "results.csv").read_text().splitlines()[0].split(",")
    assert header == [*COLUMNS, "style", "spread"]
    first, second = importlib.import_module("twinlens.callbacks.results.results_csv").read_results(
        tmp_path / "results.csv"
    )
    assert (first["style"], first["spread"]) == (None, None)
    assert (second["style"], second["spread"]) == ("damping=0.1", 2.5)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["faithfulness/ig/sufficiency@1"] == 61.0
    assert metrics["faithfulness/ig/damping=0.1/sufficiency@1"] == 58.5
    # what shows or joins rows tells the two apart
    summary = importlib.import_module("twinlens.callbacks.sweep.summary")
    assert "style" in summary.COLUMNS
    assert len(set(summary.COLUMNS)) == len(summary.COLUMNS)
    table = importlib.import_module("twinlens.callbacks.results.formatting").format_table([first, second])
    assert "damping=0.1" in table
    (view,) = importlib.import_module("twinlens.callbacks.report.evaluation_tables").evaluation_tables(
        [first, second], {}
    )
    assert [line["cells"][0]["shown"] for line in view["lines"]] == ["61", "58.5"]


def test_fields_that_have_a_column_agree_with_it() -> None:
    fields = {field.name for field in dataclasses.fields(Result)} - set(NOT_WRITTEN)
    assert fields <= set(COLUMNS)
    assert set(AXES) <= set(ABOUT)
    assert settings_text(row()) == ""
    assert settings_text(row(variant="positions=all")) == "positions=all"
    assert SETTINGS[0] == "variant"


def test_a_reader_keeps_columns_that_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_results(path, [row(), row(method="gradsim")])
    lines = path.read_text().splitlines()
    added = ["added," + lines[0], *(f"'=1+{n}," + line for n, line in enumerate(lines[1:]))]
    path.write_text("\n".join(added) + "\n")
    assert read_results(path) == [row(added="=1+0"), row(added="=1+1", method="gradsim")]


@pytest.mark.parametrize("name", [name for name, column in COLUMNS.items() if not column.needed])
def test_a_reader_does_without_a_column(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results.csv"
    write_results(path, [row()])
    cells = [line.split(",") for line in path.read_text().splitlines()]
    place = cells[0].index(name)
    path.write_text("\n".join(",".join(line[:place] + line[place + 1 :]) for line in cells) + "\n")
    assert read_results(path) == [row(**{name: None})]


@pytest.mark.parametrize("name", [name for name, column in COLUMNS.items() if column.needed])
def test_no_results_without_what_they_are_of(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(",".join(column for column in COLUMNS if column != name) + "\n")
    with pytest.raises(UserError, match=f"The header of .*expected .*{name}"):
        read_results(path)
    path.write_text(",".join([*COLUMNS, name]) + "\n")
    with pytest.raises(UserError, match="each once"):
        read_results(path)


def test_files_of_before_a_column_get_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.csv"
    write_results(path, [row(), row(method="random_neurons")])
    drawn = Column(about=False, before=lambda cells: "true" if cells["method"] == "random_neurons" else None)
    monkeypatch.setattr("twinlens.callbacks.results.results_csv.COLUMNS", {**columns_module.COLUMNS, "drawn": drawn})
    assert [cells["drawn"] for cells in read_results(path)] == [None, "true"]
    write_results(path, [row(drawn=True), row(method="random_neurons", drawn=False)])
    assert [cells["drawn"] for cells in read_results(path)] == ["true", None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = FakeRun(n_train=40, n_test=12).write(tmp_path_factory.mktemp("finished") / "run")
    with (run / "results.csv").open() as opened:
        lines = opened.read().splitlines()
    place = lines[0].split(",").index("stderr")
    assert all(line.count(",") == lines[0].count(",") for line in lines)
    cut = [",".join(["later", *(cells := line.split(","))[:place], *cells[place + 1 :]]) for line in lines]
    (run / "results.csv").write_text("\n".join(cut) + "\n")
    return run


def test_the_report_reads_a_run_with_other_columns(finished: Path) -> None:
    write_report(finished)
    assert "later" not in (finished / "report.html").read_text().partition("</style>")[0]
    rows = RunFiles(finished).results
    assert {cells["later"] for cells in rows} == {"later"}
    assert {cells["stderr"] for cells in rows} == {None}


@pytest.mark.parametrize(("found", "said"), [(RUN_FORMAT + 1, "update twinlens"), ("two", "whole number")])
def test_a_run_of_a_later_format_is_refused_by_name(tmp_path: Path, found: object, said: str) -> None:
    folder = RunFolder(tmp_path)
    folder.write()
    path = tmp_path / "metrics.json"
    assert json.loads(path.read_text()) == {FORMAT: RUN_FORMAT}
    assert RunFiles(tmp_path).metrics == {}
    assert RunFiles(tmp_path).results == []
    path.write_text(json.dumps({FORMAT: found}))
    for read in ("metrics", "results"):
        with pytest.raises(UserError, match=f"{FORMAT}.*{said}") as caught:
            getattr(RunFiles(tmp_path), read)
        assert str(path) in str(caught.value)
    path.write_text("{}")  # as 0.1.0 wrote it
    assert RunFiles(tmp_path).results == []


def test_scores_of_a_later_format_are_refused_by_name(tmp_path: Path) -> None:
    run = FakeRun(n_train=20, n_test=8, neuron=("ig",), instance=()).write(tmp_path / "run")
    path = run / "scores" / "ig" / "method.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, FORMAT: METHOD_FORMAT + 1, "unheard_of": 1}))
    with pytest.raises(UserError, match=r"method.yaml has format \d+, .*update twinlens"):
        _ = RunFiles(run).scores
    path.write_text(yaml.safe_dump({**settings, FORMAT: METHOD_FORMAT, "unheard_of": 1}))
    (scores,) = RunFiles(run).scores
    assert scores.settings["unheard_of"] == 1


def test_a_store_entry_of_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    entry = tmp_path / "evaluate" / fingerprint_of({})
    entry.mkdir(parents=True)
    (entry / "numbers").write_text("1")
    write_manifest(entry, "evaluate", entry.name, {}, {})
    content = json.loads((entry / "manifest.json").read_text())
    assert content[FORMAT] == 1
    (entry / "manifest.json").write_text(json.dumps({**content, FORMAT: 2, "unheard_of": {}}))
    with pytest.raises(UserError, match=r"manifest\.json has format 2.*update twinlens"):
        damage_of(entry)
    assert read_manifest(entry).stage == "evaluate"  # it can still be listed and removed
    del content[FORMAT]  # as 0.1.0 wrote it
    (entry / "manifest.json").write_text(json.dumps({**content, "unheard_of": {}}))
    assert damage_of(entry) == ""


def test_a_format_of_true_is_no_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="whole number"):
        require_known_format(tmp_path, {FORMAT: True}, 1)
