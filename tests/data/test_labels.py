"""Labels beside classes that a checkpoint only numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from attribution.base import UserError
from data.labels import label_numbers

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
