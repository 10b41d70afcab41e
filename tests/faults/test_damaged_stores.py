"""Stores harmed in every shape: what is read is right, what cannot be is computed anew or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.damage import SEEDS, Series, run_series


def judge(series: Series, count: int) -> None:
    assert series.wrong == []
    assert sum(series.tried.values()) == count
    assert sum(series.outcomes.values()) == len(SEEDS) * count
    assert series.outcomes["computed"] > count / 2
    # only a full folder where a lock belongs is for a person to look at
    assert series.outcomes["refused"] <= series.tried["lock: full folder"]


def test_forty_damaged_stores(tmp_path: Path) -> None:
    judge(run_series(40, 1, tmp_path), 40)


@pytest.mark.long
def test_three_hundred_damaged_stores(tmp_path: Path) -> None:
    series = run_series(300, 2, tmp_path)
    print(series)
    judge(series, 300)
    assert len(series.tried) > 50
