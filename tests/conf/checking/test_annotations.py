"""The type checker that compares configuration values with signatures."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Protocol, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conf.checking.shapes import Inner, Limit, SpecialInner, Window
from twinlens.conf.checking.annotations import UNKNOWN, Built, describe, literal_choices, locate, matches, type_name

Number = TypeVar("Number", int, float)
Small = TypeVar("Small", bound=int)
Count = NewType("Count", int)


class Colour(enum.Enum):
    RED = "red"


class Mode(enum.StrEnum):
    FAST = "fast"


class Sized(Protocol):
    size: int


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (3, int),
        (3, float),
        (0.5, float),
        (True, bool),
        ("a", str),
        ("a/b", Path),
        (None, None),
        (None, int | None),
        (None, typing.Optional[int]),  # noqa: UP045
        ("x", int | str),
        ("dot", Literal["dot", "cosine"]),
        (1, Literal[1, "all"]),
        ([], list[int]),
        ([1, 2], list[int]),
        ([1, 2], Sequence[int]),
        ([1, 2], Iterable[float]),
        ([1, 2], set[int]),
        ([1, 2], list),
        ([1, 2], tuple),
        ([1, 2], tuple[int, ...]),
        ([1, "a"], tuple[int, str]),
        ([], tuple[()]),
        ([[1], [2]], list[list[int]]),
        ({"a": 1}, dict[str, float]),
        ({"a": [1]}, Mapping[str, list[int]]),
        ({}, dict),
        ({"start": 1}, Window),
        ({"test": 1}, Limit),
        ({"test": 1, "train": 2}, Limit),
        ("fast", Mode),
        (3, Annotated[int, "steps"]),
        (3, Count),
        (3, Number),
        (3, Small),
        (object(), Any),
        ({"a": [None]}, object),
        (3, "SomeUnresolvedName"),
        (UNKNOWN, int),
        (Built(SpecialInner), Inner),
        (Built(Inner), Inner | None),
        (Built(Inner), Sized),
        (Built(Inner, partial=True), Callable[[int], Inner]),
        (Built(Inner, partial=True), Any),
        ([Built(Inner)], list[Inner]),
    ],
)
def test_accepted(value: Any, annotation: Any) -> None:
    assert matches(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("3", int),
        (3.0, int),
        (True, int),
        (True, float),
        (False, Literal[0]),
        (1, bool),
        (1, str),
        (True, str),
        (None, int),
        (None, str),
        (1, Path),
        (1, Literal["1"]),
        ("dots", Literal["dot", "cosine"]),
        ("abc", list[str]),
        ("abc", Sequence[str]),
        ("abc", Iterable[str]),
        ([1, "a"], list[int]),
        ([True], list[int]),
        ([1, 2, 3], tuple[int, int]),
        ([1], tuple[()]),
        (["a"], tuple[int, ...]),
        ({"a": "x"}, dict[str, float]),
        ({1: 1.0}, dict[str, float]),
        ([1], dict[str, int]),
        (1, dict),
        ({"stop": 3}, Window),
        ({"start": 1, "end": 3}, Window),
        ({"start": "1"}, Window),
        ({"train": 1}, Limit),
        ({"test": 1, "tset": 1}, Limit),
        ("red", Colour),
        ("slow", Mode),
        ("x", Number),
        ("x", Count),
        ({"size": 1}, Inner),
        (Built(Window), Inner),
        (Built(Inner), int),
        (Built(Inner, partial=True), Inner),
        ("relu", Callable[[int], int]),
    ],
)
def test_refused(value: Any, annotation: Any) -> None:
    assert not matches(value, annotation)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "an int"),
        (float, "a float"),
        (bool, "a bool (true or false)"),
        (Path, "a path"),
        (None, "null"),
        (int | None, "an int or null"),
        (list[int], "a list[int]"),
        (list[int | None], "a list[int | None]"),
        (dict[str, float] | None, "a dict[str, float] or null"),
        (Literal["dot", "cosine"], "'dot' or 'cosine'"),
        (tuple[int, ...], "a tuple[int, ...]"),
        (Colour, "'red'"),
        (Inner, "an Inner"),
    ],
)
def test_describe(annotation: Any, text: str) -> None:
    assert describe(annotation) == text


def test_type_name_of_callables_and_literals() -> None:
    assert type_name(Callable[[int], str]) == "Callable[[int], str]"
    assert type_name(list[Literal["a"]]) == "list[Literal['a']]"


def test_literal_choices_are_found_in_unions() -> None:
    assert literal_choices(Literal["a", 1] | None | Literal["b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "annotation", "path"),
    [
        ([1, "x"], list[int], "m.a[1]"),
        ([1, "x"], list[int] | None, "m.a[1]"),
        ({"a": {"b": "x"}}, dict[str, dict[str, int]], "m.a.a.b"),
        ({"start": "x"}, Window | None, "m.a.start"),
        ([1, 2], tuple[int, str], "m.a[1]"),
        ([1, 2], tuple[int, str, str], "m.a"),
        ("x", int, "m.a"),
        ([1], list[str] | tuple[str, ...], "m.a"),
    ],
)
def test_locate_names_the_innermost_culprit(value: Any, annotation: Any, path: str) -> None:
    assert locate(value, annotation, "m.a")[0] == path


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ANNOTATIONS = st.recursive(
    st.sampled_from([int, float, str, bool, type(None), Any]),
    lambda inner: st.one_of(
        inner.map(lambda item: list[item]),
        inner.map(lambda item: dict[str, item]),
        st.tuples(inner, inner).map(lambda pair: typing.Union[pair]),  # noqa: UP007
        inner.map(lambda item: tuple[item, ...]),
    ),
    max_leaves=4,
)


def reference(value: Any, annotation: Any) -> bool:
    """The rules, written out once more over the annotations drawn here."""
    if annotation is Any:
        return True
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Union:
        return reference(value, arguments[0]) or reference(value, typing.Union[arguments[1:]])  # noqa: UP007
    if origin in (list, tuple):
        return type(value) is list and all(reference(item, arguments[0]) for item in value)
    if origin is dict:
        return type(value) is dict and all(reference(item, arguments[1]) for item in value.values())
    return type(value) is annotation or (annotation is float and type(value) is int)


@given(value=VALUES, annotation=ANNOTATIONS)
def test_agrees_with_the_rules(value: Any, annotation: Any) -> None:
    assert matches(value, annotation) == reference(value, annotation)


@given(value=VALUES, annotation=ANNOTATIONS)
def test_the_located_culprit_is_wrong_itself(value: Any, annotation: Any) -> None:
    if not matches(value, annotation):
        path, culprit, expected = locate(value, annotation, "k")
        assert path.startswith("k")
        assert not matches(culprit, expected)
