from __future__ import annotations

import pytest
import torch

from tests import oracles_evaluation as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.concepts import Concepts
from twinlens.attribution.evaluation.needs import Available

TRAIN = ["dog", "cat ", "Dog", "house", "river"]
TEST = ["dog", "sea", "CAT"]
LISTS = {
    "a": torch.tensor([[[0, 2, 1], [3, 3, 4], [1, 0, 2]]]),
    "b": torch.tensor([[[4, 0, 1], [3, 0, 4], [4, 3, 0]], [[0, 2, 0], [1, 1, 1], [0, 1, 1]]]),
}


def plain(text: str) -> str:
    return text.strip().lower()


def test_concepts_of_the_data():
    found = {r.metric: r.value for r in Concepts().evaluate(TRAIN, TEST, {})}
    train, test = {plain(t) for t in TRAIN}, {plain(t) for t in TEST}
    assert found == {
        "concepts_train": len(train),
        "concepts_test": len(test),
        "concepts_shared": len(test & train),
        "concept_coverage": pytest.approx(100 * len(train & test) / len(test)),
        "concept_use": pytest.approx(100 * len(train & test) / len(train)),
    }


def test_what_each_method_retrieves_equals_a_naive_loop():
    found = {(r.method, r.metric): r for r in Concepts(top=2).evaluate(TRAIN, TEST, LISTS)}
    for method, runs in LISTS.items():
        counts = [len({plain(TRAIN[row]) for test in run for row in test[:2].tolist()}) for run in runs]
        retrieved = found[method, "concepts_retrieved"]
        assert (retrieved.value, retrieved.k, retrieved.n) == (sum(counts) / len(counts), 2, 3)
        matches = [
            100
            * sum(plain(TRAIN[row]) == plain(TEST[test]) for run in runs for row in run[test, :2].tolist())
            / (2 * len(runs))
            for test in range(3)
        ]
        match = found[method, "concept_match"]
        assert (match.value, match.stderr) == pytest.approx(oracles.mean_and_error(matches))


def test_what_it_needs():
    assert "concept" in Concepts().missing(Available(columns=frozenset({"question"})))
    assert Concepts().missing(Available(columns=frozenset({"concept"}))) == ""
    with pytest.raises(UserError, match="at least 1"):
        Concepts(top=0)
