"""Scores of before the files were moved: the same settings give the same numbers (`cases` says how they were made)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.cases import BUILD, CASES, EXPLAIN, NUMBERS, ROWS, build, golden, numbers_of
from tests.running import CommandLine

TOLERANCE = 1e-7
"""Of another build of the libraries: relative to the largest number of a column, about one bit of single precision."""
SUMS = 1e-13
"""Of the same build, in results: the last digits of a mean, where the order of its terms has changed."""
SAID_OF_ANOTHER = re.compile(r"/(gradsim|influence)_neurons/test/target(_prob)?$")
"""Columns in which neurons of instances named the predicted class, though the instances were of the label's loss."""
PLACES = ("index", "layer", "unit", "site", "position")
"""Columns, or their endings, that say where a score lies: two entries of the same score may change places."""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are split among threads: the golden runs had one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES)
def test_same_numbers_as_before_the_move(
    case: str, command: CommandLine, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinlens.callbacks.run.pipeline.write_report", lambda *_: None)  # its own tests look at it
    finished = command(*CASES[case], EXPLAIN[case], "hydra.run.dir=run", f"paths.store={tmp_path / 'store'}", base=())
    assert finished.code == 0, finished.err
    expected = golden(case)
    found = numbers_of(tmp_path / "run", set(expected[ROWS].tolist()))  # rows may have come since
    same_build = str(expected.pop(BUILD)) == build()
    came_later = {name for name in set(found) - set(expected) if name.endswith("/target")}  # of instance methods
    assert sorted(set(found) - came_later) == sorted(expected)
    assert found[ROWS].tolist() == expected[ROWS].tolist()
    numbers = [name for name in expected if name != ROWS and not SAID_OF_ANOTHER.search(name)]
    assert len(numbers) > len(NUMBERS)
    for name in numbers:
        if same_build and name.startswith("results/"):  # sums of double precision may be taken in another order
            np.testing.assert_allclose(found[name], expected[name], rtol=SUMS, atol=SUMS, err_msg=name)
        elif same_build:
            assert np.array_equal(found[name], expected[name], equal_nan=True), name
        else:
            assert _close(name, found, expected), name


def _close(name: str, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    mine, theirs = found[name], expected[name]
    if mine.shape != theirs.shape or not np.array_equal(np.isnan(mine), np.isnan(theirs)):
        return False
    compared = ~np.isnan(theirs)
    ending = name.rpartition("/")[2].rpartition("_")[2]
    scores = name.removesuffix(ending) + "score"
    if ending in PLACES and scores in expected:
        compared &= _alone(expected[scores])
    largest = np.abs(theirs[compared]).max(initial=0.0)
    return bool(np.all(np.abs(mine - theirs)[compared] <= TOLERANCE * largest))


def _alone(scores: np.ndarray) -> np.ndarray:
    """Entries whose score differs from both neighbours'; what follows a list's last entry is not known."""
    gap = TOLERANCE * np.nanmax(np.abs(scores), initial=0.0)
    apart = np.abs(np.diff(scores, axis=1)) > gap
    first, last = np.ones((len(scores), 1), dtype=bool), np.zeros((len(scores), 1), dtype=bool)
    return np.concatenate([first, apart], axis=1) & np.concatenate([apart, last], axis=1)


def test_another_build_is_compared_within_rounding() -> None:
    """The comparison for other builds accepts one bit and two ties that change places, and nothing more."""
    kept = {"a/score": np.float32([[3.0, 2.0, 2.0, 1.0, 0.5]]), "a/unit": np.float32([[7, 4, 5, 6, 9]])}
    rounded = {"a/score": np.nextafter(kept["a/score"], np.float32(9)), "a/unit": np.float32([[7, 5, 4, 6, 9]])}
    assert all(_close(name, rounded, kept) for name in kept)
    for change in ({"a/score": np.float32([[3.0, 2.0, 2.0, 1.0, 0.5001]])}, {"a/unit": np.float32([[7, 4, 5, 8, 9]])}):
        (name,) = change
        assert not _close(name, kept | change, kept)
