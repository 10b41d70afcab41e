"""Names of numbers in trackers: `method/evaluation/metric`, one for each row, in signs that every tracker takes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.callbacks.fake_run import FakeRun
from twinlens.callbacks.results.columns import ABOUT, COLUMNS
from twinlens.callbacks.results.results_csv import read_results
from twinlens.callbacks.tracking.names import SAME_IN_A_RUN, finite, number_name, numbers_of

EMPTY = dict.fromkeys(COLUMNS)


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        ({"method": "ig", "evaluation": "faithfulness", "metric": "sufficiency", "k": 10, "split": "test"},
         "ig/faithfulness/sufficiency_at_10"),
        ({"evaluation": "accuracy", "metric": "accuracy", "split": "validation"}, "accuracy/validation/accuracy"),
        ({"evaluation": "accuracy", "metric": "accuracy", "group": "label=not enough info"},
         "accuracy/label-not enough info/accuracy"),
        ({"method": "ig", "evaluation": "overlap", "metric": "shared", "reference_group": "atp", "k": 0.5},
         "ig/overlap/atp/shared_at_0.5"),
        ({"method": "no_neurons/attn", "evaluation": "faithfulness", "metric": "mrr", "variant": "site=attn;x=1",
          "setting": "n_steps=5", "explain": "gold", "model": "tiny"},
         "no_neurons-attn/faithfulness/site-attn-x-1/mrr"),
    ],
)  # fmt: skip
def test_a_name_says_what_the_number_is_of(cells: dict, name: str) -> None:
    assert number_name({**EMPTY, **cells}) == name


def test_every_row_of_a_run_has_a_name_of_its_own(tmp_path: Path) -> None:
    run = FakeRun(paper=True, n_train=30, n_test=8, list_length=12).write(tmp_path / "run")
    rows = read_results(run / "results.csv")
    numbers = numbers_of(rows, {"time/fit": 1.0})
    assert len(numbers) == sum(row["value"] is not None for row in rows) + 1
    assert not [name for name in numbers if re.search(r"-\d+$", name) and name.rpartition("-")[0] in numbers]
    assert numbers["time/fit"] == 1.0


def test_every_column_that_tells_rows_apart_is_in_the_name() -> None:
    row = {**EMPTY, "evaluation": "e", "metric": "m", "method": "x"}
    for column in set(ABOUT) - set(SAME_IN_A_RUN):
        assert number_name({**row, column: "other"}) != number_name(row), column


CELLS = st.text(max_size=12) | st.none()


@settings(max_examples=20)
@given(st.lists(st.tuples(CELLS, CELLS, CELLS, st.floats()), max_size=8))
def test_no_number_is_lost_whatever_the_names_hold(cells: list[tuple]) -> None:
    rows = [
        {**EMPTY, "evaluation": "e", "metric": "m", "method": a, "group": b, "variant": c, "value": value}
        for a, b, c, value in cells
    ]
    numbers = numbers_of(rows)
    assert [value for value in numbers.values() if not math.isnan(value)] == [
        row["value"] for row in rows if not math.isnan(row["value"])
    ]
    assert len(numbers) == len(rows)
    for name in numbers:
        assert re.fullmatch(r"[A-Za-z0-9_. /-]+", name)
        assert not {"", ".", ".."} & set(name.split("/"))


def test_what_is_not_finite_is_left_out() -> None:
    assert finite({"a": 1.0, "b": math.nan, "c": math.inf}) == {"a": 1.0}
