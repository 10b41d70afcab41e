"""Linear datamodelling score against loops, its interval, and settings that say nothing."""

from __future__ import annotations

import pytest
import torch

from tests import oracles_truth as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.correlation import (
    counts_of_draws,
    pearson,
    resampled_spearman,
    spearman,
)
from twinlens.attribution.evaluation.ground_truth.lds import LinearDatamodelling
from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
from twinlens.attribution.evaluation.train_ranking import random_ranking
from twinlens.attribution.targets import Targets, phi

TESTS, N_TRAIN = 3, 20
GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(2, TESTS, N_TRAIN, generator=GENERATOR)


def fake_measure(rows: list[int], seed: int) -> torch.Tensor:
    """φ that tells rows and seed, with ties."""
    drawn = torch.randn(TESTS, generator=torch.Generator().manual_seed(31 * sum(rows) + seed))
    return (4 * drawn).round().double()


def test_lds_equals_a_naive_loop_for_every_seed() -> None:
    inputs = TruthInputs(
        N_TRAIN,
        {"gradsim": HeldScores(SCORES[:1]), "random_instances": HeldScores(SCORES, is_control=True)},
        torch.arange(TESTS),
        fake_measure,
    )
    found = LinearDatamodelling(subsets=6, seeds=(3, 5), first_draw=7).evaluate(inputs)
    subsets = [random_ranking(N_TRAIN, 7 + draw)[:10].tolist() for draw in range(6)]
    measured = {seed: torch.stack([fake_measure(rows, seed) for rows in subsets], 1) for seed in (3, 5)}
    expected = {
        name: [oracles.lds(run, subsets, truth) for run in runs for truth in measured.values()]
        for name, runs in (("gradsim", SCORES[:1]), ("random_instances", SCORES))
    }
    among = [
        oracles.spearman(x, y) for x, y in zip(measured[3].tolist(), measured[5].tolist(), strict=True)
    ]  # tests one by one
    expected["other_seed"] = among
    assert [(row.method, row.control) for row in found] == [
        ("gradsim", False), ("random_instances", True), ("other_seed", True),
    ]  # fmt: skip
    for row in found:
        values = expected[row.method]
        assert row.value == pytest.approx(sum(values) / len(values))
        assert row.low is not None
        assert row.high is not None
        assert row.low < row.value < row.high
        assert (row.n, row.k, row.better) == (TESTS, 6, "higher")


def test_one_seed_has_no_models_of_another_to_be_compared_with() -> None:
    inputs = TruthInputs(N_TRAIN, {"gradsim": HeldScores(SCORES[:1])}, torch.arange(TESTS), fake_measure)
    assert [row.method for row in LinearDatamodelling(subsets=5).evaluate(inputs)] == ["gradsim"]


def test_correlations_equal_loops_with_ties_and_constants() -> None:
    x = torch.tensor([[1.0, 1.0, 2.0, -3.0], [5.0, 5.0, 5.0, 5.0]])
    y = torch.tensor([[0.5, 2.0, 2.0, -1.0], [1.0, 2.0, 3.0, 4.0]])
    for measured, oracle in ((pearson, oracles.pearson), (spearman, oracles.spearman)):
        expected = [oracle(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        assert measured(x, y).tolist() == pytest.approx(expected)


def test_resamples_are_ranked_anew() -> None:
    x, y = (torch.randn(TESTS, 7, generator=GENERATOR) for _ in range(2))
    y = y.round()
    found = resampled_spearman(x, y, draws=5, seed=3)
    points, tests = counts_of_draws(7, 5, 3), counts_of_draws(TESTS, 5, 4)
    for value, of_points, of_tests in zip(found.tolist(), points.long(), tests.tolist(), strict=True):
        drawn = torch.arange(7).repeat_interleave(of_points)
        each = [oracles.spearman(a[drawn].tolist(), b[drawn].tolist()) for a, b in zip(x, y, strict=True)]
        assert value == pytest.approx(sum(w * v for w, v in zip(of_tests, each, strict=True)) / TESTS)


def test_noise_predicts_nothing_within_its_error() -> None:
    """Of 40 subsets and independent scores: 0 lies in the interval."""
    worth = torch.randn(8, 30, generator=GENERATOR)
    inputs = TruthInputs(
        30,
        {"noise": HeldScores(torch.randn(1, 8, 30, generator=GENERATOR)), "exact": HeldScores(worth[None])},
        torch.arange(8),
        lambda rows, seed: worth[:, rows].double().sum(1),
    )
    noise, exact = LinearDatamodelling().evaluate(inputs)
    assert noise.low is not None
    assert noise.high is not None
    assert noise.low < 0 < noise.high
    assert exact.value == pytest.approx(1)


def test_phi_of_folded_targets_and_differences() -> None:
    prob = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]])
    folded = phi(prob.log(), Targets(torch.tensor([1, 0]), fold=torch.tensor([0, 1, 1])))
    assert folded.exp().tolist() == pytest.approx([0.5, 0.1])
    apart = phi(prob.log()[None], Targets(torch.tensor([1, 0]), against=torch.tensor([0, 1])))
    assert apart.exp()[0].tolist() == pytest.approx([0.5, 1 / 7])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"subsets": 4}, "subsets=4 are fewer than an interval needs"),
        ({"percent": 100}, "percent=100 leaves no part"),
        ({"seeds": []}, "seeds=\\[\\] fits nothing"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        LinearDatamodelling(**settings)


def test_a_split_too_small_for_two_subsets_is_refused() -> None:
    with pytest.raises(UserError, match="no two different subsets"):
        LinearDatamodelling().rows_of_subsets(3)


def test_lists_that_do_not_cover_the_split_are_refused() -> None:
    LinearDatamodelling().require_coverage("lds", "gradsim", top_k=10, n_train=20)
    with pytest.raises(UserError, match=r"set method.gradsim.top_k=11"):
        LinearDatamodelling().require_coverage("lds", "gradsim", top_k=10, n_train=21)


def test_a_plan_knows_all_fits() -> None:
    evaluation = LinearDatamodelling(subsets=5, seeds=(0, 1))
    asked = evaluation.fits({"gradsim": torch.arange(N_TRAIN)})
    assert [len(rows) for rows, _ in asked] == evaluation.expected_fits(N_TRAIN, 1) == [10] * 10
