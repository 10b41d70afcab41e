"""Errors that were raised from themselves or from each other: every walk along their causes ends."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hydra.errors import InstantiationException

from twinlens import train
from twinlens.attribution.errors import UserError
from twinlens.callbacks.store.failures import chain_of, user_error_in, writing


def raised_from(error: BaseException, cause: BaseException | None) -> BaseException:
    """The error as `raise error from cause` leaves it."""
    error.__cause__ = cause
    return error


def test_each_error_once_in_the_order_of_causes() -> None:
    deepest = ValueError("deepest")
    middle = raised_from(KeyError("middle"), deepest)
    assert list(chain_of(raised_from(TypeError("last"), middle)))[1:] == [middle, deepest]


def test_an_error_raised_from_itself_ends_the_walk() -> None:
    error = ValueError("itself")
    assert list(chain_of(raised_from(error, error))) == [error]


def test_errors_raised_from_each_other_end_the_walk() -> None:
    one, other = ValueError("one"), KeyError("other")
    raised_from(one, other)
    other.__context__ = one
    assert list(chain_of(one)) == [one, other]
    assert list(chain_of(other)) == [other, one]


def test_what_was_only_being_handled_is_no_named_cause() -> None:
    error = TypeError("a defect")
    error.__context__ = UserError("handled by another way")
    assert list(chain_of(error)) == [error, error.__context__]
    assert user_error_in(error) is None


def test_a_cycle_inside_a_stage_comes_out_as_it_is(tmp_path: Path) -> None:
    error = ValueError("itself")
    with pytest.raises(ValueError, match="itself") as raised, writing(tmp_path, "paths.store"):
        raise error from error
    assert raised.value is error


def test_a_full_disk_beside_a_cycle_is_still_a_sentence(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    error = raised_from(RuntimeError("a writer failed"), full)
    full.__context__ = error
    with pytest.raises(UserError, match=r"paths\.store=DIR"), writing(tmp_path, "paths.store"):
        raise error


@pytest.mark.parametrize("cause", ["user error", "defect", "itself"])
def test_what_a_constructor_raises_comes_out_of_build_without_a_cycle(
    monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    def fails(node: object, **given: object) -> None:
        error = InstantiationException("in a constructor")
        causes = {"user error": UserError("lower it"), "defect": TypeError("a defect"), "itself": error}
        raise error from causes[cause]

    monkeypatch.setattr(train, "instantiate", fails)
    expected = UserError if cause == "user error" else InstantiationException
    with pytest.raises(expected) as raised:
        train.build({"_target_": "twinlens.models.module.TextClassifier"})
    if cause != "itself":  # such a cycle is not of build's making
        followed, seen = raised.value, []
        while followed is not None:
            assert followed not in seen
            seen.append(followed)
            followed = followed.__cause__ or followed.__context__
        assert len(seen) == (1 if cause == "user error" else 2)


def test_a_name_that_is_too_long_is_told_wherever_it_stands() -> None:
    for folder in (Path("x" * 300), Path()):
        with (
            pytest.raises(UserError, match=r"^y{60}… is no path .*255 bytes"),
            writing(folder, "hydra.run.dir"),
        ):
            Path("y" * 300).is_dir()
