"""Twenty ends of runs and sweeps of two processes each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.ranks import AT_MOST, end_ranks

ENDS = 20


@pytest.mark.long
def test_twenty_ends_leave_no_process_and_no_wrong_number(tmp_path: Path) -> None:
    ends = end_ranks(ENDS, 4, tmp_path)
    print(ends)
    assert ends.wrong == []
    assert sum(ends.tried.values()) == ENDS
    assert ends.slowest <= AT_MOST
