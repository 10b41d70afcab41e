"""results.csv and the tables made from it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.columns import COLUMNS
from twinlens.callbacks.results.formatting import format_table, format_value
from twinlens.callbacks.results.results_csv import read_results, write_results


def row(**cells: str | int | float | None) -> dict[str, str | int | float | None]:
    base: dict[str, str | int | float | None] = dict.fromkeys(COLUMNS)
    base |= {"model": "tiny", "data": "demo", "seed": 0, "split": "test", "method": "ig", "evaluation": "faithfulness"}
    return base | {"metric": "sufficiency", "k": 1, "value": 61.5, "stderr": 2.25, "n": 200} | cells


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    rows = [
        row(),
        row(k=0.1, group='Conflicting, "Evidence"\nCherrypicking', variant="steps=20;positions=last"),
        row(k=None, value=-0.5, stderr=None, n=None, method="gradsim"),
        row(k=1e-05, value=1e-300),
    ]
    path = tmp_path / "run" / "results.csv"
    write_results(path, rows)
    assert read_results(path) == rows
    assert [p.name for p in path.parent.iterdir()] == ["results.csv"]  # no partial file stays


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-2", "@cmd", "\tx", "\rx", "'=already", "''-x"])
def test_text_cannot_become_a_formula(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.csv"
    write_results(path, [row(method=text, group=text, k=text, value=-3.5)])
    with path.open(newline="", encoding="utf-8") as stream:
        cells = next(csv.DictReader(stream))
    assert cells["method"] == cells["group"] == cells["k"] == "'" + text
    assert cells["value"] == "-3.5"  # a negative number stays a number
    back = read_results(path)[0]
    assert (back["method"], back["group"], back["k"], back["value"]) == (text, text, text, -3.5)


@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    value=st.one_of(st.none(), st.floats(allow_nan=False)),
)
def test_any_text_and_number_survive(tmp_path_factory: pytest.TempPathFactory, text: str, value: float | None) -> None:
    path = tmp_path_factory.mktemp("any") / "results.csv"
    rows = [row(method=text, variant=text, value=value)]
    write_results(path, rows)
    assert read_results(path) == rows


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "missing"),
        ("model,data\n", "header"),
        (",".join(COLUMNS) + "\n" + ",".join(["a"] * 13) + "\n", "Line 2"),
        (
            ",".join(COLUMNS) + "\nm,d,zero,test,ig,e,m,,,,,1,,1" + "," * (len(COLUMNS) - 14) + "\n",
            "Column seed in line 2",
        ),
        (",".join(COLUMNS) + '\nm,"d\n', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: str | bytes | None, named: str) -> None:
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=named) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "stderr", "shown"),
    [
        (61.5, 2.25, "61.5 ± 2.2"),
        (0.123456, 0.00123, "0.1235 ± 0.0012"),
        (0.123456, None, "0.1235"),
        (12.0, None, "12"),
        (50, 0.0, "50 ± 0"),
        (123.4, 45.6, "123 ± 46"),
        (1e-12, 1e-13, "1e-12 ± 1e-13"),
        (float("nan"), None, "nan"),
        (None, None, ""),
    ],
)
def test_a_value_has_the_digits_its_error_allows(value: float | None, stderr: float | None, shown: str) -> None:
    assert format_value(value, stderr) == shown


def test_printed_table_groups_aligns_and_points() -> None:
    rows = [
        row(),
        row(metric="accuracy", evaluation="accuracy", method="model", k=None, value=0.71, stderr=0.032),
        row(metric="comprehensiveness", k=100, value=33.0, stderr=1.5),
        row(metric="unique_instances", evaluation="uniqueness", method="gradsim", k=10, value=812.0, stderr=None),
    ]
    lines = format_table(rows).splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == ["faithfulness", "accuracy", "uniqueness"]
    assert lines[2].split() == ["ig", "sufficiency", "@1", "↑", "61.5", "±", "2.2", "200"]
    assert lines[3].split() == ["ig", "comprehensiveness", "@100", "↓", "33.0", "±", "1.5", "200"]
    assert lines[2].index("61.5 ± 2.2") == lines[3].index("33.0 ± 1.5")
    unique = next(line for line in lines if "unique_instances" in line)
    assert "↑" not in unique
    assert "↓" not in unique


def test_a_metric_keeps_its_k_and_a_block_says_its_split_once() -> None:
    rows = [
        row(evaluation="accuracy", metric="accuracy", k=None),
        row(evaluation="accuracy", metric="accuracy", k=None, split="validation"),
        row(evaluation="overlap", metric="instance_overlap_per_test", k=100, reference_group="influence_hessian"),
        row(metric="comprehensiveness_flips" * 3, k=100, method="m" * 40, group="g" * 40, variant="positions=all;" * 9),
    ]
    text = format_table(rows)
    assert max(map(len, text.splitlines())) <= 100
    assert "overlap (split test)" in text.splitlines()
    assert "instance_overlap_per_test @100  influence_hessian" in text
    assert text.split("faithfulness")[1].count("@100") == 1
    assert "group" not in text.split("faithfulness")[0].split("overlap")[0]


def test_callers_say_which_direction_is_better() -> None:
    assert "↓" in format_table([row()], {"sufficiency": "lower"})
    assert "↑" not in format_table([row()], {})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_printed_table_fits_the_terminal(texts: list[str]) -> None:
    rows = [row(method=text * 30, seed=i, group=text * 9, variant=text) for i, text in enumerate(texts)]
    lines = format_table(rows).split("\n")
    assert max(map(len, lines)) <= 100
    assert len([line for line in lines if "61.5 ± 2.2" in line]) == len(rows)


def test_seeds_and_published_figures_get_columns_only_when_there_are_any() -> None:
    plain = format_table([row()])
    assert "seed" not in plain
    assert "published" not in plain
    both = format_table([row(published=84.42), row(seed=1)])
    assert both.splitlines()[1].split() == ["seed", "method", "metric", "value", "published", "n"]
    assert both.splitlines()[2].split()[-2:] == ["84.42", "200"]


def test_no_rows_is_said() -> None:
    assert format_table([]) == "no results"
