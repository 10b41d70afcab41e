"""Findings that every tracker gets of a finished run: tables of examples with both lenses, bundles, what is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import load_from_disk

from tests.callbacks.fake_run import FakeRun
from twinlens.callbacks.results.columns import COLUMNS
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.tracking import example_table as of_examples
from twinlens.callbacks.tracking import findings as of_findings
from twinlens.callbacks.tracking.example_table import INSTANCES, LONGEST, UNITS, example_table
from twinlens.callbacks.tracking.findings import Bundle, files_taken, sheet_of
from twinlens.callbacks.tracking.gather import findings_of_run

SECRET = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4"
SMALL = {"n_train": 30, "n_test": 8, "list_length": 12, "neuron": ("ig",), "instance": ("gradsim",)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run whose texts hold a secret."""
    folder = FakeRun(**SMALL, marker=f" {SECRET}", evidence_words=120).write(tmp_path_factory.mktemp("run") / "run")
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    return folder


def test_the_table_of_examples_has_both_lenses(run: Path) -> None:
    sheet = example_table(RunFiles(run))
    assert sheet.columns[0] == "index"
    assert sheet.columns[-6:] == ("label", "prediction", "verdict", "target", "ig", "gradsim")
    tests, train = (load_from_disk(str(run / "examples" / split)) for split in ("test", "train"))
    assert sorted(row[0] for row in sheet.rows) == sorted(tests["index"])
    listed = {row["index"]: row for row in load_from_disk(str(run / "scores" / "gradsim" / "test"))}
    units = {row["index"]: row for row in load_from_disk(str(run / "scores" / "ig" / "test"))}
    texts = {row["index"]: row for row in train}
    for row in sheet.rows:
        cells = dict(zip(sheet.columns, row, strict=True))
        lines = cells["gradsim"].split("\n")
        assert len(lines) == INSTANCES
        for line, index, score in zip(lines, listed[row[0]]["top_index"], listed[row[0]]["top_score"], strict=False):
            assert line.startswith(f"{score:.3g}  #{index} (")
            assert texts[index]["claim"][:20] in line
        expected = [
            f"{score:.3g}  L{layer} · {unit}"
            for layer, unit, score in zip(*(units[row[0]][name] for name in ("layer", "unit", "score")), strict=True)
        ][:UNITS]
        assert cells["ig"].split("\n") == expected
    assert SECRET not in str(sheet.rows)
    assert f"{INSTANCES} training instances" in sheet.cut


def test_what_the_table_leaves_out_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_examples, "EXAMPLES", 3)
    sheet = example_table(RunFiles(run))
    assert len(sheet.rows) == 3
    assert sheet.cut.startswith("3 of 8 examples")
    long = [cell for row in sheet.rows for cell in row[1:3] if len(str(cell)) > LONGEST]
    assert all("more characters in the run's files" in cell for cell in long)
    assert long
    monkeypatch.setattr(of_findings, "MOST_ROWS", 2)
    cut = sheet_of([{"a": n} for n in range(5)], ["a"], "results.csv")
    assert list(cut.rows) == [[0], [1]]
    assert cut.cut == "2 of 5 rows; results.csv has all"


def test_bundles_lead_from_the_model_to_the_report(run: Path) -> None:
    rows = RunFiles(run).results
    found = findings_of_run(run, [*rows, {**rows[0], "value": float("nan")}], {"time/fit": 2.0}, "abc" * 8, False)
    model, scores, report = found.bundles
    assert (model.name, model.made_here, scores.facts["made of"]) == ("model-abcabcabcabc", False, model.name)
    assert report.facts["made of"] == scores.name
    assert set(model.large) == {"model.safetensors"}
    assert "config.json" in model.files
    assert {"results.csv", "metrics.json", "config.yaml"} <= set(scores.files)
    assert any(name.startswith("scores/gradsim/test/") for name in scores.large)
    assert "report.html" in report.files
    assert found.numbers["time/fit"] == 2.0
    assert found.sheets["results"].columns == tuple(COLUMNS)
    assert any("1 number(s) are not finite" in sentence for sentence in found.said)


def test_large_files_are_taken_where_they_are_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1")
    large.write_bytes(b"1234")
    model, scores = (Bundle(kind, kind, {"s": small}, {"l": large}) for kind in ("model", "scores"))
    assert set(files_taken(model, False, 100, "wandb")) == {"s"}
    assert set(files_taken(model, True, 100, "wandb")) == {"s", "l"}
    assert capsys.readouterr().out == ""
    assert set(files_taken(scores, False, 3, "wandb")) == {"s"}
    assert "scores leaves out 1 file(s) of 4 bytes, more than logger.wandb.largest=3" in capsys.readouterr().out
