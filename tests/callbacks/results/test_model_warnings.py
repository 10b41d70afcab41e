"""Thresholds of the warnings about data and model, on small arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_from_disk

from twinlens.callbacks.results.indexed_rows import Rows, read_tokens
from twinlens.callbacks.results.model_warnings import (
    classes_without,
    contradicting,
    no_better_than_majority,
    predicted_alike,
    repeated,
)

pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.mark.parametrize(
    ("prediction", "label", "told"),
    [
        ([1] * 10, [0, 1] * 5, 1),
        ([1] * 10, [-1] * 10, 1),  # no labels: nothing speaks for one class
        ([1] * 10, [-1] * 8 + [0, 1], 1),
        ([1] * 10, [1] * 10, None),  # right
        ([1] * 9, [0] * 4 + [1] * 5, None),  # may be chance
        ([1] * 39 + [0], [0, 1] * 20, None),
        ([], [], None),
    ],
)
def test_one_class_for_all(prediction: list[int], label: list[int], told: int | None) -> None:
    assert predicted_alike(np.array(prediction), np.array(label)) == told


@pytest.mark.parametrize(
    ("prediction", "label", "told"),
    [
        ([0, 1] * 20, [0] * 20 + [1] * 20, (0.5, 0, 0.5)),
        ([0] * 30 + [1] * 10, [0] * 30 + [1] * 10, None),
        ([1] * 30 + [0] * 10, [0] * 30 + [1] * 10, (0.0, 0, 0.75)),
        ([0] * 38 + [1] * 2, [0] * 36 + [1] * 4, (0.95, 0, 0.9)),  # two of forty right beyond always answering 0
        ([0] * 380 + [1] * 20, [0] * 360 + [1] * 40, None),  # the same shares, of ten times as many
        ([0, 0, 1, 2, 2] * 1, [0, 1, 1, 2, 0], None),  # too few
        ([1] * 20, [-1] * 20, None),
    ],
)
def test_accuracy_beside_the_most_frequent_label(prediction: list[int], label: list[int], told: object) -> None:
    assert no_better_than_majority(np.array(prediction), np.array(label)) == told


def test_classes_without_a_train_example() -> None:
    names = {0: "no", 1: "yes", 2: "maybe"}
    assert classes_without(np.array([0, 0, -1, 1]), names) == ["maybe"]
    assert classes_without(np.array([1, 1]), names) == ["no", "maybe"]
    assert classes_without(np.array([0, 1, 2]), names) == []
    assert classes_without(np.array([-1, -1]), names) == [], "no labels at all are another matter"


def test_copies_are_counted_with_their_first() -> None:
    assert repeated([b"a", b"b", b"a", b"c", b"a"]) == 3
    assert repeated([b"a", b"b"]) == 0


def test_equal_texts_with_other_labels_are_counted() -> None:
    assert contradicting([b"a", b"b", b"a", b"b", b"a"], [0, 1, 1, 1, 0]) == 3
    assert contradicting([b"a", b"a", b"a"], [1, -1, None]) == 0, "no label contradicts nothing"


@pytest.mark.parametrize(
    "ids",
    [[[1, 2], [3], [1, 2], [1, 23]], [[[1, 2], [3]], [[4]], [[1, 2], [3]], [[1, 2], [5]]]],
    ids=["text", "choice"],
)
def test_texts_are_compared_by_what_is_read(ids: list[object], tmp_path: Path) -> None:
    Dataset.from_dict({"index": [0, 1, 2, 3], "input_ids": ids}).save_to_disk(str(tmp_path / "rows"))
    first, second, third, fourth = read_tokens(Rows(tmp_path, load_from_disk(str(tmp_path / "rows"))))
    assert first == third
    assert len({first, second, fourth}) == 3
