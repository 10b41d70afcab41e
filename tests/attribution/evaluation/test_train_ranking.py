from __future__ import annotations

import math

import pytest
import torch

from tests import oracles_evaluation as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.subsets import RANDOM, SubsetGrid
from twinlens.attribution.evaluation.train_ranking import (
    least_influential,
    most_influential,
    random_ranking,
    share_of_rows,
    train_ranking,
)

MEAN = [0.5, -1.0, 0.5, 2.0, -1.0, 0.0]
SUMMARY = {"mean": torch.tensor(MEAN, dtype=torch.float64), "votes": torch.tensor([1, 0, 3, 0, 3, 1])}


def test_rankings_put_the_lower_row_first_among_equals():
    assert train_ranking(SUMMARY).tolist() == oracles.ranking(MEAN) == [3, 0, 2, 5, 1, 4]
    assert train_ranking(SUMMARY, "votes").tolist() == oracles.ranking(SUMMARY["votes"].tolist()) == [2, 4, 0, 5, 1, 3]


def test_mean_ranks_stand_in_for_means_that_would_be_infinite():
    infinite = torch.full((6,), -math.inf, dtype=torch.float64)
    ranks = torch.tensor([2.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    ranked = train_ranking({**SUMMARY, "mean": infinite, "mean_rank": ranks})
    assert ranked.tolist() == oracles.ranking(ranks.tolist(), best_is_high=False) == [1, 0, 2, 4, 3, 5]
    unranked = torch.full((6,), math.nan)
    assert train_ranking({**SUMMARY, "mean_rank": unranked}).tolist() == oracles.ranking(MEAN)


def test_first_and_last_parts_of_a_ranking():
    order = torch.tensor([3, 0, 2, 5, 1, 4])
    assert most_influential(order, 50).tolist() == [3, 0, 2]
    assert least_influential(order, 50).tolist() == [4, 1, 5]
    assert [share_of_rows(6, percent) for percent in (0.1, 20, 60, 100)] == [1, 1, 4, 6]
    assert share_of_rows(2768, 10) == 277


def test_random_rankings_are_permutations_that_depend_on_the_seed_alone():
    first = random_ranking(50, 0)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, random_ranking(50, 0))
    assert not torch.equal(first, random_ranking(50, 1))


def test_random_subsets_are_drawn_once_for_all_methods():
    rankings = {"a": torch.arange(20), "b": torch.arange(20).flip(0)}
    found = SubsetGrid(fractions=(10, 50), seeds=(4, 7)).subsets(rankings)
    assert len(found) == 2 * (2 * 2 + 2)
    drawn = [subset for subset in found if subset.group == "random"]
    assert [(s.method, s.percent, s.seed, len(s.rows)) for s in drawn] == [
        (RANDOM, 10, 4, 2),
        (RANDOM, 10, 7, 2),
        (RANDOM, 50, 4, 10),
        (RANDOM, 50, 7, 10),
    ]
    assert set(drawn[0].rows.tolist()) < set(drawn[2].rows.tolist())
    assert found[0].rows.tolist() == [0, 1]
    assert found[1].rows.tolist() == [19, 18]
    assert {s.group for s in SubsetGrid(groups=("least",)).subsets(rankings)} == {"least"}
    assert SubsetGrid().subsets({}) == []


@pytest.mark.parametrize("options", [{"fractions": (0,)}, {"fractions": (101,)}, {"seeds": ()}, {"groups": ()}])
def test_a_grid_that_asks_for_nothing_is_refused(options):
    with pytest.raises(UserError, match="expected"):
        SubsetGrid(**options)
