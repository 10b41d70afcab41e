"""Rows of others: what is in order, what is refused with line and column, and how they stand beside a run's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.callbacks.fake_run import FakeRun
from tests.results_page import PAGE, SCHEMA, page, schema
from tests.test_docs import fenced
from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.columns import COLUMNS
from twinlens.callbacks.results.outside_rows import checked_rows, put_beside, remarks
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.results.run_files import BESIDE_FILE, RunFiles
from twinlens.callbacks.results.run_tables import write_tables
from twinlens.callbacks.share.model_card import numbers

pytestmark = pytest.mark.usefixtures("quiet_datasets")
GOOD = {"model": "tiny", "data": "demo", "seed": "0", "split": "test", "method": "theirs", "evaluation": "lds"} | {
    "metric": "lds", "k": "40", "value": "0.21", "low": "0.1", "high": "0.3", "n": "200"
}  # fmt: skip


def file_of(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"value": ""}, "Column value in line 3 of .* is empty; expected a number"),
        ({"value": "much"}, "Column value in line 3 of .* is 'much'; expected a number"),
        ({"value": "nan"}, "Column value in line 3 .* expected a finite number"),
        ({"value": "1_000"}, "Column value in line 3 .* expected a number with a point"),
        ({"model": " "}, "Column model in line 3 .* expected a name"),
        ({"split": "tests"}, "Column split in line 3 .* expected train, validation, test or nothing"),
        ({"metric": ""}, "Column metric in line 3 .* expected a name"),
        ({"n": "2.5"}, "Column n in line 3 of .* is '2.5'; expected a whole number"),
        ({"n": "0"}, "Column n in line 3 .* at least one example"),
        ({"high": ""}, "Column high in line 3 .* both ends"),
        ({"low": "0.4"}, "Column low in line 3 .* not above high, 0.3"),
        ({"method": "theirs"}, "Line 3 of .* measures the same as line 2"),
    ],
)
def test_a_wrong_row_is_refused_with_line_and_column(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        checked_rows(file_of(tmp_path / "rows.csv", GOOD, {**GOOD, "method": "other", **changed}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,data\n", "expected model,data,evaluation,metric,value and others"),
        ("model,data,evaluation,metric,value\n", "a header and no row"),
        (
            "model,data,evaluation,metric,value\na,b\n",
            "Line 2 of .* has 2 cells; expected 5, .*: see docs/results.md",
        ),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        checked_rows(tmp_path / "rows.csv")
    with pytest.raises(UserError, match="is missing"):
        checked_rows(tmp_path / "none.csv")


def test_what_may_be_a_slip_is_remarked_on(tmp_path: Path) -> None:
    slips = {"metric": "ldss", "evaluation": "LDS", "value": "0.9", "mine": "x"}
    rows = checked_rows(file_of(tmp_path / "rows.csv", {**GOOD, **slips}))
    assert remarks(rows) == [
        "column mine is none of results.csv's and is not shown",
        "metric ldss stands in no table of ground truth; did you mean lds?",
        "evaluation LDS is none of twinlens; did you mean lds?",
        "ldss of theirs is 0.9, outside of its interval 0.1 to 0.3",
    ]


def test_a_run_of_ours_is_in_order_by_the_same_check(tmp_path: Path) -> None:
    rows = FakeRun(paper=True).results()
    write_results(tmp_path / "results.csv", rows)
    assert len(checked_rows(tmp_path / "results.csv")) == len(rows)
    kept = Path(__file__).resolve().parents[3] / "docs" / "benchmark.csv"
    assert {"lds", "loo_pearson"} <= {row["metric"] for row in checked_rows(kept)}


def test_a_method_of_others_stands_in_the_table_beside_ours(tmp_path: Path) -> None:
    run = FakeRun(n_train=8, n_test=2, list_length=2, summary=False, instance=("gradsim",), neuron=()).write(
        tmp_path / "r"
    )
    own = {"model": "tiny", "data": "demo", "seed": 0, "split": "test", "method": "gradsim", "evaluation": "lds"}
    write_results(
        run / "results.csv", [{**own, "metric": "lds", "k": 40, "value": 0.3, "low": 0.2, "high": 0.4, "n": 2}]
    )
    before = (run / "results.csv").read_bytes()
    put_beside(run, [file_of(tmp_path / "theirs.csv", GOOD)])
    write_tables(RunFiles(run))
    table = list(csv.reader((run / "tables" / "ground_truth.csv").open(encoding="utf-8")))
    assert [line[0] for line in table[1:]] == ["gradsim", "theirs"]
    assert any(cell.startswith("0.21") for cell in table[2])
    assert (run / "results.csv").read_bytes() == before
    assert "theirs" not in "\n".join(numbers(RunFiles(run)))
    assert [row["method"] for row in read_results(run / BESIDE_FILE)] == ["theirs"]
    put_beside(run, [])
    assert not (run / BESIDE_FILE).exists()
    for changed, said in (({"data": "mnli"}, "Column data in line 2"), ({"method": "gradsim"}, "the run itself")):
        with pytest.raises(UserError, match=said):
            put_beside(run, [file_of(tmp_path / "theirs.csv", {**GOOD, **changed})])


def test_the_page_and_the_schema_are_those_of_the_code(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run python -m tests.results_page"
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()
    assert [field["name"] for field in schema()["fields"]] == list(COLUMNS)
    assert all(field["description"] for field in schema()["fields"])
    (example,) = fenced(text, "text")
    (tmp_path / "example.csv").write_text(example, encoding="utf-8")
    assert len(checked_rows(tmp_path / "example.csv")) == 1
