"""Label values: numbers and truth values that meet, values that say "no label", classes that are only numbered."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.labels import (
    check_label,
    class_names,
    class_number,
    label_numbers,
    merged_labels,
    refuse_doubtful_classes,
    says_no_label,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, "0", 0.0, "0.0", Decimal("0"), 1], ["0", "1"]),
        (["true", "True", "TRUE", True, False], ["False", "True"]),
        (["true", "false"], ["false", "true"]),
        ([True, False], ["False", "True"]),
        ([-1, 0, 1], ["0", "1"]),
        (["-1", "0", "1", "2"], ["0", "1", "2"]),
        ([-1.0, 0.0, 1.0], ["0", "1"]),
        ([-1, 1], ["-1", "1"]),
        ([-1, 0], ["-1", "0"]),
        ([-2, -1, 0, 1, 2], ["-2", "-1", "0", "1", "2"]),
        ([-1], []),
        (["yes", "no", -1], ["no", "yes"]),
        (["yes", -1], ["-1", "yes"]),
        ([0, 1, "nan"], ["0", "1"]),
        (["yes", "nan", "no"], ["nan", "no", "yes"]),
        (["1", "01", "2"], ["01", "1", "2"]),
        (["10", "2"], ["2", "10"]),
        ([0, True], ["0", "True"]),
        (["250.00", "250.0"], ["250.0", "250.00"]),
        (["1E50", "5A11"], ["1E50", "5A11"]),
        (["١", "٢"], ["١", "٢"]),
        ([0.5, 1.0], ["0.5", "1"]),
    ],
)
def test_classes(values: list[Any], names: list[str]) -> None:
    assert class_names(values) == names


def test_numbers_and_truth_values_meet_however_they_are_written() -> None:
    assert label_numbers("f", range(6), [0, "0", 0.0, "0.0", 1, "1.0"], ["0", "1"]) == [0, 0, 0, 0, 1, 1]
    assert label_numbers("f", range(4), [True, "true", "FALSE", False], ["False", "True"]) == [1, 1, 0, 0]
    assert class_number("0.0", ["0", "0.0"]) == 1  # a name of its own comes first
    assert class_number(1, ["True", "False"]) is None
    assert merged_labels([0, "0.0", 1], ["0", "1"]) == {"0": [0, "0.0"]}


@pytest.mark.parametrize("value", [None, NAN, "", " ", "nan", "NULL", "N/A", -1, "-1", -1.0, Decimal("-1")])
def test_beside_class_numbers_nothing_said_is_no_label(value: Any) -> None:
    assert says_no_label(value, ["0", "1"])
    assert says_no_label(value, ["False", "True"])
    assert label_numbers("f", [0], [value], ["0", "1"], allow_empty=True) == [-1]


def test_beside_names_only_minus_one_is_no_label() -> None:
    assert [says_no_label(value, ["no", "yes"]) for value in (-1, "-1", None, "nan", "")] == [True, True, *[False] * 3]
    assert not says_no_label(-1, ["-1", "0", "1"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("²", r"file row 3 has the label '²', whose digits"),
        ("-①", "whose digits"),
        ("9" * 5000, "a label of 5000 characters, expected at most 500"),
        ([1], r"the label \[1\] of the type list"),
        ({"a": 1}, "of the type dict"),
        (b"1", "of the type bytes"),
        (float("inf"), "of the type float"),
    ],
)
def test_what_is_no_label_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_label("file row 3", value)


NUMBERED = ["LABEL_0", "LABEL_1"]


@pytest.mark.parametrize("values", [[0, 1, 1], ["0", "1", "1"], [0.0, 1.0, 1.0], [*NUMBERED, "LABEL_1"]])
def test_the_number_of_a_class_is_a_name_of_it(values: list[Any]) -> None:
    assert label_numbers("file", range(3), values, NUMBERED) == [0, 1, 1]


def test_a_remedy_that_works_when_followed() -> None:
    for values in (["pos", "neg"], [1, 2], ["0", "yes"]):
        with pytest.raises(UserError, match=r"names none of its classes.*data\.label_names=\[") as refused:
            label_numbers("file", range(2), values, NUMBERED)
        named = re.search(r"data\.label_names=\[(.*?)\]", str(refused.value))
        assert named is not None
        assert sorted(label_numbers("file", range(2), values, named[1].split(","))) == [0, 1]


def test_classes_with_names_have_no_numbers() -> None:
    for names in (["no", "yes"], ["LABEL_1", "LABEL_0"], ["LABEL_0", "yes"]):
        with pytest.raises(UserError, match=r"unknown label 0, expected one of .*give all labels in class order"):
            label_numbers("file", [4], [0], names)


@pytest.mark.parametrize(
    ("names", "n_rows", "message"),
    [
        (["no"], 40, r"^gold holds one class, 'no', in all 40 rows with a label; expected at least two"),
        (["No", "maybe", "no"], 40, r"'No' and 'no', which differ in case or spaces only; expected one writing"),
        (["not  it", "not it"], 40, "differ in case or spaces only"),
        (["cafe\u0301", "caf\u00e9"], 40, "differ in case or spaces only"),
        ([f"{n}.5" for n in range(24)], 24, r"24 classes in 24 rows, '0.5', '1.5' …; expected classes that rows share"),
        ([str(n) for n in range(24)], 47, "no ids: name another column"),
    ],
)
def test_classes_that_nobody_meant_are_refused(names: list[str], n_rows: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        refuse_doubtful_classes(names, n_rows, "gold")


@pytest.mark.parametrize(
    ("names", "n_rows"),
    [(["no", "yes"], 2), ([str(n) for n in range(20)], 20), ([str(n) for n in range(24)], 48), (["a", "á"], 9)],
)
def test_classes_of_small_files_and_of_many_are_taken(names: list[str], n_rows: int) -> None:
    refuse_doubtful_classes(names, n_rows, "gold")
