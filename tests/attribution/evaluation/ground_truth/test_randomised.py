"""Correlation with the scores of shuffled weights against loops, over all rows and label by label."""

from __future__ import annotations

import pytest
import torch

from tests import oracles_truth as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.randomised import Randomised, with_shuffled_weights
from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs


def test_correlations_equal_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(1, 3, 11, generator=generator)
    after = [torch.randn(1, 3, 11, generator=generator).round() for _ in range(2)]
    label = torch.tensor([0] * 5 + [1] * 4 + [2] * 2)  # two rows have no correlation to speak of
    inputs = TruthInputs(11, {"gradsim": HeldScores(before)}, torch.arange(3), lambda rows, seed: torch.zeros(3), label)
    found = Randomised(seeds=[0, 1]).compare(inputs, {"gradsim": [HeldScores(one) for one in after]})
    over_all, within = [], []
    for one in after:
        for x, y in zip(before[0].tolist(), one[0].tolist(), strict=True):
            over_all.append(oracles.spearman(x, y))
            within.append((5 * oracles.spearman(x[:5], y[:5]) + 4 * oracles.spearman(x[5:9], y[5:9])) / 9)
    assert [row.value for row in found] == pytest.approx([sum(over_all) / 6, sum(within) / 6])
    assert [row.group for row in found] == ["", "within_label"]


def test_shuffled_weights_are_the_same_numbers_elsewhere() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    other, again = with_shuffled_weights(model, 1), with_shuffled_weights(model, 1)
    for own, drawn, same in zip(model.parameters(), other.parameters(), again.parameters(), strict=True):
        assert torch.equal(own.flatten().sort().values, drawn.flatten().sort().values)
        assert torch.equal(drawn, same)
    assert not torch.equal(model[0].weight, other[0].weight)


def test_no_seed_is_refused() -> None:
    with pytest.raises(UserError, match="shuffles nothing"):
        Randomised(seeds=[])
