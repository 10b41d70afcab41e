"""Operations of passes over whole gradients, counted one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from twinlens.callbacks.attribute.whole_gradient_costs import rotation_work

LAYERS: list[Any] = [SimpleNamespace(d_in=8, d_out=4), SimpleNamespace(d_in=3, d_out=30)]


@pytest.mark.parametrize(
    ("lengths", "n_test", "n_blocks"), [([3, 5, 3, 9], 7, 1), ([3, 5, 3, 9], 7, 3), ([1], 100, 4), ([40] * 50, 4, 4)]
)
def test_rotations_follow_the_form_in_which_tests_are_held(lengths: list[int], n_test: int, n_blocks: int) -> None:
    expected = 0.0
    for layer in LAYERS:
        d_in, d_out = layer.d_in, layer.d_out
        train = sum(2 * (min(length, d_out) * d_in**2 + min(length, d_in) * d_out**2) for length in lengths)
        tests = n_test / n_blocks * 2 * d_in * d_out * (d_in + d_out)
        expected += train + (n_blocks - 1) * min(train, tests)
    assert rotation_work(LAYERS, lengths, n_test, n_blocks) == pytest.approx(expected)
