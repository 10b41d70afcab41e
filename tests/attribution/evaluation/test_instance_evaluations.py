from __future__ import annotations

import pytest
import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.duplicates import Duplicates, reciprocal_ranks
from twinlens.attribution.evaluation.instance_lists import InstanceLists
from twinlens.attribution.evaluation.statistics import wilson
from twinlens.attribution.evaluation.uniqueness import Uniqueness, unique_instances
from twinlens.attribution.instance.protocol import InstanceScores


def lists(*seeds: list[list[int]], twin: list[int] | None = None) -> InstanceLists:
    """Lists of each seed, [tests][k]."""
    runs = []
    for seed in seeds:
        index = torch.tensor(seed)
        score = torch.zeros(index.shape)
        runs.append(InstanceScores(torch.arange(len(index)), index, score, index, score))
    return InstanceLists.of(runs, 100, None if twin is None else torch.tensor(twin))


def test_unique_instances_counts_each_train_row_once():
    top_index = torch.tensor([[4, 1, 2], [1, 4, 9], [1, 7, 4]])
    assert unique_instances(top_index, 1) == 2
    assert unique_instances(top_index, 2) == 3
    assert unique_instances(top_index, 10) == 5


def test_uniqueness_of_a_method_without_seeds():
    (result,) = Uniqueness(top=2).evaluate(lists([[4, 1, 2], [1, 4, 9]]))
    assert (result.metric, result.value, result.stderr, result.n, result.k) == ("unique_instances", 2, None, 2, 2)
    assert result.better == ""


def test_uniqueness_is_averaged_over_seeds():
    (result,) = Uniqueness(top=2).evaluate(lists([[0, 1], [0, 1]], [[2, 3], [4, 5]]))
    assert result.value == 3
    assert result.stderr == pytest.approx(2**0.5 / 2**0.5)


def test_reciprocal_ranks_are_zero_beyond_the_list():
    top_index = torch.tensor([[4, 1, 2], [1, 4, 9], [1, 7, 4]])
    assert reciprocal_ranks(top_index, torch.tensor([4, 9, 8])).tolist() == pytest.approx([1, 1 / 3, 0])


def test_duplicates_takes_seeds_first_and_skips_tests_without_a_twin():
    first = [[4, 1], [8, 9], [5, 6], [3, 0]]
    second = [[1, 4], [9, 8], [7, 6], [3, 0]]
    result, found = Duplicates().evaluate(lists(first, second, twin=[4, 8, 5, -1]))
    values = torch.tensor([0.75, 0.75, 0.5])
    assert result.value == pytest.approx(float(values.mean()))
    assert result.stderr == pytest.approx(float(values.std() / 3**0.5))
    assert (result.metric, result.n, result.k, result.better) == ("mrr", 3, 100, "higher")
    assert (found.metric, found.n, found.k, found.value) == ("found", 3, 1, pytest.approx(0.5))  # in one seed of two
    assert found.samples is not None
    assert found.samples.tolist() == [0.5, 0.5, 0.5]
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 3))


@pytest.mark.parametrize("twin", [None, [-1, -1]])
def test_duplicates_refuses_data_without_plants(twin):
    with pytest.raises(UserError, match=r"no planted near-duplicate.*data=demo"):
        Duplicates().evaluate(lists([[4, 1], [1, 4]], twin=twin))


def test_seeds_with_other_tests_are_refused():
    index = torch.tensor([[1]])
    score = torch.zeros(1, 1)
    runs = [InstanceScores(torch.tensor([i]), index, score, index, score) for i in (0, 1)]
    with pytest.raises(ValueError, match="same tests"):
        InstanceLists.of(runs, 1)
