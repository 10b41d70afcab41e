"""Thresholds of the warnings about scores, on small arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from twinlens.callbacks.results.score_warnings import (
    Lists,
    all_zero,
    always_on_top,
    extremes,
    far_damping,
    large_residuals,
    solver_residual,
    without_order,
)


def lists(high: list[float], low: list[float], spread: list[float], first: list[int] | None = None) -> Lists:
    rows = np.arange(len(high)) + 100
    return Lists(rows, np.array(high), np.array(low), np.array(spread), np.array(first or [-1] * len(high)))


def test_extremes_of_lists_of_any_length() -> None:
    high, low = extremes(pa.array([[1.0, -2.0], [], [3.0], None, [0.0, 0.0]]))
    np.testing.assert_array_equal(high, [1, np.nan, 3, np.nan, 0])
    np.testing.assert_array_equal(low, [-2, np.nan, 3, np.nan, 0])


def test_zero_and_equal_scores_are_told_apart() -> None:
    found = lists(high=[0, 0, 2, 2, np.nan], low=[0, -1, 2, 1, np.nan], spread=[0, 0.5, 0, 1, np.inf])
    assert all_zero(found).tolist() == [100]
    assert without_order(found) == 1


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ([4] * 9 + [5], (4, 9, 10)),
        ([4] * 8 + [5, 6], None),
        ([4] * 9, None),  # too few
        ([-1] * 20, None),  # neurons
    ],
)
def test_one_instance_on_top(first: list[int], told: object) -> None:
    n = len(first)
    assert always_on_top(lists([1] * n, [0] * n, [1] * n, first)) == told


def test_lists_without_an_order_have_no_first() -> None:
    assert always_on_top(lists([1] * 20, [1] * 20, [0] * 20, [0] * 20)) is None


@pytest.mark.parametrize(
    ("residual", "told"),
    [
        ([0.09] * 40, False),
        ([0.12] * 2 + [0.01] * 38, False),  # 5 %, as with the paper's 20 steps
        ([0.12] * 3 + [0.01] * 37, True),
        ([0.6] + [0.01] * 39, True),
    ],
)
def test_completeness_residuals(residual: list[float], told: bool) -> None:
    layers = np.stack([np.zeros(40), np.array(residual)], 1)
    found = large_residuals(layers, np.ones(40))
    assert (found is not None) == told
    assert found is None or found.tolist() == residual
    assert large_residuals(layers, np.full(40, 100.0)) is None, "it is relative to what is explained"


@pytest.mark.parametrize(
    ("residual", "told"),
    [(1e-15, None), (0.01, None), (0.02, 0.02), (None, None), ([1e-9, 0.5], 0.5), (float("inf"), float("inf"))],
)
def test_solver_residuals(residual: object, told: float | None) -> None:
    assert solver_residual({"residual": residual}) == told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"damping": 0.1, "curvature": "ggn"}, None),
        ({"damping": 10.0, "curvature": "ggn"}, None),
        ({"damping": 11.0, "curvature": "ekfac"}, 11.0),
        ({"damping": 1e-6, "curvature": "ggn", "solver": "direct"}, 1e-6),
        ({"damping": 100.0, "curvature": "identity"}, None),  # absolute
        ({"damping": 1e-6, "curvature": "ggn", "solver": "lissa"}, None),  # the recursion's own
        ({"damping": 1e4, "curvature": "ggn", "solver": "cg", "preconditioner": "none"}, None),  # of whole layers
        ({"similarity": "dot"}, None),
    ],
)
def test_damping(settings: dict[str, Any], told: float | None) -> None:
    assert far_damping(settings) == told
