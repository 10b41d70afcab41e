from __future__ import annotations

import pytest
import torch

from tests import oracles_evaluation as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.artifacts import (
    Artifacts,
    lexical_overlap,
    mispredicted_as_entailed,
    own_artifacts,
)
from twinlens.attribution.evaluation.needs import Available

TRAIN = [
    ("The doctor saw the lawyer.", "The lawyer saw the doctor."),
    ("a b c", "a b c"),
    ("a b c d", "c x"),
    ("", ""),
    ("one two", "three"),
]


def test_jaccard_takes_words_as_they_stand():
    for pair in TRAIN:
        assert lexical_overlap(pair) == pytest.approx(oracles.jaccard(*pair))
    assert lexical_overlap(TRAIN[0]) == pytest.approx(3 / 7)  # "lawyer." is not "lawyer"


def test_containment_ignores_case_and_punctuation():
    found = [lexical_overlap(pair, "containment") for pair in TRAIN]
    assert found == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert own_artifacts(TRAIN).tolist() == [True, True, False, False, False]


def test_only_examples_with_another_label_are_mispredicted():
    prediction, label = torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 1, 2, 1, -1])
    assert mispredicted_as_entailed(prediction, label, 0).tolist() == [False, True, True, False, False]
    assert mispredicted_as_entailed(2 - prediction, label, 2).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("measure", ["jaccard", "containment"])
def test_every_number_equals_a_naive_loop(measure):
    lists = {
        "a": torch.tensor([[[0, 1, 2], [2, 1, 4], [3, 0, 1]]]),
        "b": torch.tensor([[[4, 3, 2], [1, 1, 1], [0, 2, 4]], [[0, 1, 2], [2, 3, 4], [1, 0, 3]]]),
    }
    asked = torch.tensor([True, False, True])
    results = Artifacts(measure, top=(1, 2, 5)).evaluate(TRAIN, lists, asked, "challenge")
    assert [(r.method, r.k) for r in results] == [
        ("a", 1),
        ("b", 1),
        ("random_instances", 1),
        ("a", 2),
        ("b", 2),
        ("random_instances", 2),
        ("random_instances", 5),
    ]
    for result in results:
        assert (result.group, result.n, result.k) == ("challenge", 2, result.k)
        assert result.variant == ("" if measure == "jaccard" else "measure=containment")
        if result.method == "random_instances":
            expected = sum(lexical_overlap(pair, measure) for pair in TRAIN) / len(TRAIN)
            assert (result.value, result.stderr) == (pytest.approx(expected), None)
            continue
        runs = lists[result.method]
        per_test = []
        for test in (0, 2):
            found = [
                lexical_overlap(TRAIN[row], measure) for run in runs for row in run[test, : int(result.k)].tolist()
            ]
            per_test.append(sum(found) / len(found))
        assert (result.value, result.stderr) == pytest.approx(oracles.mean_and_error(per_test))


def test_random_instances_of_the_run_are_the_control():
    rows = {"random_instances": torch.tensor([[[0], [1]]])}
    (result,) = Artifacts(top=(1,)).evaluate(TRAIN, rows, torch.tensor([False, True]), "own")
    assert (result.value, result.group) == (1, "own")
    assert Artifacts().evaluate(TRAIN, rows, torch.tensor([False, False]), "own") == []


def test_what_it_needs():
    assert "pairs" in Artifacts().missing(Available(instance=("gradsim",)))
    assert "instance method" in Artifacts().missing(Available(pairs=True))
    assert Artifacts().missing(Available(pairs=True, instance=("gradsim",))) == ""
    with pytest.raises(UserError, match="empty list"):
        Artifacts(top=(0,))
