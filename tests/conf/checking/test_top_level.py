"""Top-level keys and quantities."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.byte_sizes import parse_bytes
from twinlens.conf.checking.top_level import RunConfig, check_top_level


def test_defaults_are_valid() -> None:
    check_top_level({**dataclasses.asdict(RunConfig()), "model": {"name": "tiny"}, "method": {}, "logger": None})


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"sed": 1}, ["unknown key 'sed'", "did you mean 'seed'?"]),
        ({"modle": {}}, ["unknown key 'modle'", "did you mean 'model'?"]),
        ({"seed": "one"}, ["seed='one'", "expected an int", "got a str"]),
        ({"seed": True}, ["seed=True", "expected an int"]),
        ({"fit": "yes"}, ["fit='yes'", "true or false"]),
        ({"overwrite": 1}, ["overwrite=1", "true or false"]),
        ({"memory_budget": "lots"}, ["memory_budget='lots'", "memory_budget=4GiB"]),
        ({"memory_budget": None}, ["memory_budget=None", "got null"]),
        ({"attribute_split": 3}, ["attribute_split=3", "expected a str"]),
        ({"tags": [1]}, ["tags[0]=1", "expected a str"]),
        ({"tags": "a"}, ["tags='a'", "write [a]"]),
        ({"model": "tiny"}, ["model='tiny'", "python train.py model=NAME"]),
    ],
)
def test_wrong_top_level(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_top_level(values)
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GiB", 4 * 2**30),
        ("4 GB", 4 * 10**9),
        ("1.5KiB", 1536),
        ("512", 512),
        (512, 512),
        ("7b", 7),
        ("2tib", 2 * 2**40),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_parse_bytes(text: str | int, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "4 gigabytes", "4GiBs", "0", "0.1", "nan", True, "1e9", "4,5GB"])
def test_nonsense_is_no_quantity(text: str | int) -> None:
    with pytest.raises(UserError, match=r"budget=.*expected a positive number.*budget=4GiB"):
        parse_bytes(text, where="budget")


@given(number=st.integers(1, 10**6), unit=st.sampled_from(["B", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"]))
def test_parse_bytes_is_linear_in_the_number(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * parse_bytes(f"1{unit}")
