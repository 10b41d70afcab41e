"""Comparisons of methods as files: outcomes of examples, tables/comparisons.csv, and every table as LaTeX."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch

from tests.callbacks.results.test_results_csv import row
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.report.table_views import table_views
from twinlens.callbacks.results.formatting import format_table
from twinlens.callbacks.results.latex import escaped, latex, merged
from twinlens.callbacks.results.outcomes import FILE, read_outcomes
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import write_tables
from twinlens.callbacks.results.table import Table
from twinlens.callbacks.run.folder import RunFolder

COMMON = {"model": "tiny", "data": "demo", "seed": 0}


def yes(*outcomes: int) -> torch.Tensor:
    return torch.tensor(outcomes, dtype=torch.float64)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose methods were measured on four examples."""
    folder = RunFolder(tmp_path)
    results = [
        Result("sufficiency", 75.0, n=4, k=1, method="ig", samples=yes(1, 1, 1, 0), unit=100),
        Result("sufficiency", 25.0, n=4, k=1, method="gradsim_neurons", samples=yes(0, 0, 1, 0), unit=100),
        Result("sufficiency", 25.0, n=4, k=1, method="random_neurons", samples=yes(0, 0, 0, 1), unit=100,
               reference_group="ig", variant="control=matched"),
        Result("sufficiency_flips", 1.0, n=4, k=1, method="ig", samples=1 - yes(1, 1, 1, 0), unit=4),
        Result("accuracy", 0.5, n=4, samples=yes(1, 0, 1, 0)),  # of the model, of no method
        Result("unique_instances", 3.0, n=4, method="gradsim"),  # no mean over examples
    ]  # fmt: skip
    settings = {"ig": "preset=reference"}
    folder.add_results("faithfulness", results, COMMON, ["random_neurons"], settings=settings)
    folder.write()
    (tmp_path / "config.yaml").write_text("{}")
    return tmp_path


def test_the_table_of_comparisons_is_made_of_the_runs_files(run: Path) -> None:
    write_tables(RunFiles(run))
    lines = list(csv.DictReader((run / "tables" / "comparisons.csv").open()))
    assert [(line["method"], line["reference"], line["difference"], line["p"], line["pairs"]) for line in lines] == [
        ("ig [preset=reference]", "gradsim_neurons", "50", "0.5", "2"),
        ("ig [preset=reference]", "random_neurons", "50", "0.625", "2"),  # drawn for ig: not compared with the other
    ]
    assert {(line["model"], line["data"], line["test"], line["n"], line["seeds"]) for line in lines} == {
        ("tiny", "demo", "McNemar, exact", "4", "1")
    }
    (view,) = (table for table in table_views(RunFiles(run)) if table["name"] == "Comparisons")
    place = view["header"].index("difference")
    assert "low" not in view["header"]
    assert re.fullmatch(r"50 \[-?[0-9.]+, [0-9.]+\]", view["lines"][0][place])
    assert not view["folded"]


def test_outcomes_come_back_and_are_no_part_of_results(run: Path) -> None:
    back = read_outcomes(run / FILE)
    assert [(one.method, one.matched, one.variant, one.unit) for one in back] == [
        ("ig [preset=reference]", "", "", 100), ("gradsim_neurons", "", "", 100),
        ("random_neurons", "ig [preset=reference]", "", 100),
    ]  # fmt: skip
    assert back[0].samples.tolist() == [[1, 1, 1, 0]]
    assert "samples" not in (run / "results.csv").read_text().splitlines()[0]
    RunFolder(run).write()  # a later run in the same folder without any
    assert not (run / FILE).exists()
    assert read_outcomes(run / FILE) == []


@pytest.mark.parametrize("content", [b"", b"no such file", b"\x08\0\0\0\0\0\0\0{}      "])
def test_damaged_outcomes_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"outcomes.safetensors cannot be read .*overwrite=true"):
        read_outcomes(tmp_path / FILE)


def test_latex_is_a_booktabs_tabular_with_everything_escaped(tmp_path: Path) -> None:
    header = ["method", "100% & more", "low 100% & more", "high 100% & more", "published 100% & more"]
    lines: list[list[str | int | float | None]] = [
        ["[a_b] {c} \\ ~^#$\n%", 0.5, 0.25, 0.75, ">80"], ["*", None, None, None, None],
    ]  # fmt: skip
    path = Table("own", "A title\nof two lines", header, lines).write(tmp_path)
    assert path.suffix == ".csv"
    text = (tmp_path / "own.tex").read_text().splitlines()
    assert text[0] == "% A title of two lines"
    assert text[1:5] == [
        r"% \usepackage{booktabs}", r"\begin{tabular}{lrr}", r"\toprule",
        r"method & 100\% \& more & published 100\% \& more \\",
    ]  # fmt: skip
    assert text[6] == (
        r"{[}a\_b] \{c\} \textbackslash{} \textasciitilde{}\textasciicircum{}\#\$ \% & 0.5 [0.25, 0.75] & "
        r"\textgreater{}80 \\"
    )
    assert text[7] == r"{*} &  &  \\"
    assert text[8:] == [r"\bottomrule", r"\end{tabular}"]
    for line in (text[4], *text[6:8]):  # as many cells as columns, no sign of LaTeX left unescaped
        assert len(re.findall(r"(?<!\\)&", line)) == 2
        assert not re.search(r"(?<!\\)[%#$_]", line)
        assert len(re.findall(r"(?<!\\)\{", line)) == len(re.findall(r"(?<!\\)\}", line))


def test_only_the_ends_of_a_known_interval_are_merged() -> None:
    assert merged(["low", "high", "low"], [[1, 2, 3]]) == [["low", "high", "low"], ["1", "2", "3"]]
    assert merged(["v", "low", "high"], [[1, None, None]]) == [["v"], ["1"]]
    assert escaped("a ± b → −1") == r"a $\pm$ b $\rightarrow$ $-$1"
    assert r"\begin{tabular}{l}" in latex("t", ["a"], [["x"]])


def test_where_all_examples_agree_the_interval_is_shown() -> None:
    agree = row(value=100.0, stderr=0.0, low=94.03, high=100.0)
    assert "100 [94, 100]" in format_table([agree])
    assert "61.5 ± 2.2" in format_table([row(low=57.0, high=66.0)])  # else the error as before
