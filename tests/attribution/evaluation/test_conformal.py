"""Calibrated intervals against written-out least squares and residuals, and how often they hold."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from twinlens.attribution.evaluation.conformal import NARROWEST, ROUNDS, Known, calibrated, not_negative, recalibrated


def drawn(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, and outcomes whose noise grows with them."""
    draws = torch.Generator().manual_seed(seed)
    score = torch.rand(n, 2, dtype=torch.float64, generator=draws)
    noise = torch.randn(n, dtype=torch.float64, generator=draws)
    return score, score @ torch.tensor([1.0, -2.0], dtype=torch.float64) + (0.1 + score[:, 0]) * noise


def line_of(rows: list[int], design: torch.Tensor, outcome: torch.Tensor, spread: torch.Tensor) -> tuple[list, list]:
    """Predictions and spreads of all examples by normal equations, weighted as often as the class says."""

    def solved(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(a.T @ a, a.T @ b)

    def columns_of(line: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones(len(line), 1).double(), line.abs()[:, None], spread], 1)

    line, width = design @ solved(design[rows], outcome[rows]), torch.ones(len(outcome), dtype=torch.float64)
    for _ in range(ROUNDS):
        residual = (outcome - line).abs()
        least, columns = NARROWEST * float(residual[rows].mean()), columns_of(line)
        grows = not_negative(columns[rows], residual[rows])
        scaled = 1 / (columns[rows] @ grows).clamp(min=least)
        line = design @ solved(design[rows] * scaled[:, None], outcome[rows] * scaled)
        width = (columns_of(line) @ grows).clamp(min=least)  # of what is predicted in the end
    return line.tolist(), width.tolist()


def test_intervals_are_those_of_the_written_out_residuals() -> None:
    score, outcome = drawn(41, seed=1)
    spread = score[:, :1]
    held_out = torch.arange(41) % 2
    found = calibrated(Known(score, spread, outcome), held_out, level=0.8)
    design = torch.cat([score, torch.ones(41, 1).double()], 1)
    for group in (0, 1):
        others = [row for row in range(41) if row % 2 != group]
        residuals = []
        for part in range(10):
            rest = [row for place, row in enumerate(others) if place % 10 != part]
            line, width = line_of(rest, design, outcome, spread)
            residuals += [abs(float(outcome[row]) - line[row]) / width[row] for row in others[part::10]]
        times = sorted(residuals)[math.ceil(0.8 * (len(others) + 1)) - 1]
        line, width = line_of(others, design, outcome, spread)
        for row in range(group, 41, 2):
            assert float(found.predicted[row]) == pytest.approx(line[row])
            assert float(found.low[row]) == pytest.approx(line[row] - times * width[row])
            assert float(found.high[row]) == pytest.approx(line[row] + times * width[row])


def test_an_example_is_not_calibrated_on_itself() -> None:
    score, outcome = drawn(14, seed=2)
    groups = torch.arange(14)
    before = calibrated(Known(score, score[:, :0], outcome), groups, 0.9)
    outcome[7] = 1e6
    after = calibrated(Known(score, score[:, :0], outcome), groups, 0.9)
    assert float(after.low[7]) == pytest.approx(float(before.low[7]))
    assert float(after.high[7]) == pytest.approx(float(before.high[7]))
    assert float(after.high[8]) > float(before.high[8])


@pytest.mark.parametrize("useful", [True, False])
def test_they_hold_whatever_the_predictors_are_worth(useful: bool) -> None:
    """What the scores know shows in the width alone."""
    held, width = [], []
    for seed in range(4):
        score, outcome = drawn(500, seed)
        found = calibrated(
            Known(score if useful else score.roll(1, 0), score[:, :1], outcome), torch.arange(500) % 2, 0.9
        )
        held.append(float(found.hold(outcome).double().mean()))
        width.append(float((found.high - found.low).mean()))
    assert 0.87 < sum(held) / 4 < 0.93  # 2000 outcomes: an error of .007
    assert (sum(width) / 4 < 2.5) == useful


def test_too_few_calibrate_nothing() -> None:
    score, outcome = drawn(6, seed=0)
    found = calibrated(Known(score[:, :1], score[:, :0], outcome), torch.arange(6), level=0.9)
    assert bool(found.high.isinf().all())


def test_what_an_outcome_cannot_exceed_ends_the_interval() -> None:
    score, outcome = drawn(60, seed=3)
    highest = torch.full((60,), 0.1, dtype=torch.float64)
    found = calibrated(Known(score, score[:, :0], outcome), torch.arange(60) % 2, 0.9, highest)
    assert bool((found.high <= 0.1).all())
    assert bool((found.predicted <= 0.1).all())


def test_least_squares_without_negative_coefficients_beat_a_grid() -> None:
    draws = torch.Generator().manual_seed(5)
    for _ in range(20):
        design = torch.rand(12, 3, dtype=torch.float64, generator=draws)
        outcome = torch.randn(12, dtype=torch.float64, generator=draws)
        found = not_negative(design, outcome)
        assert bool((found >= 0).all())
        error = float((design @ found - outcome).square().sum())
        steps = [step / 10 for step in range(0, 21, 2)]
        grid = torch.tensor(list(product(steps, repeat=3)), dtype=torch.float64)
        assert error <= float((grid @ design.T - outcome).square().sum(1).min()) + 1e-12


def test_a_line_of_many_gets_its_width_from_the_rest_of_the_few() -> None:
    score, outcome = drawn(50, seed=4)
    many = Known(score[:30], score[:30, :1], outcome[:30])
    few = Known(score[30:], score[30:, :1], outcome[30:])
    found = recalibrated(few, many, level=0.9)
    design = torch.cat([score, torch.ones(50, 1).double()], 1)
    line, width = line_of(list(range(30)), design, outcome, score[:, :1])
    for row in range(30, 50):
        rest = sorted(abs(float(outcome[at]) - line[at]) / width[at] for at in range(30, 50) if at != row)
        times = rest[math.ceil(0.9 * 20) - 1]
        assert float(found.low[row - 30]) == pytest.approx(line[row] - times * width[row])
        assert float(found.high[row - 30]) == pytest.approx(line[row] + times * width[row])
