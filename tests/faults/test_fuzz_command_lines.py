"""A share of the fuzzed command lines in every run of the suite; the rest in `make test-long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz_command_lines import cases
from tests.faults.fuzzing import Scratch, in_this_process


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    made = Scratch(tmp_path)
    monkeypatch.chdir(made.work)
    monkeypatch.syspath_prepend(str(made.modules))
    return made


@pytest.mark.parametrize(
    ("first", "count"), [(100_000, 40), pytest.param(0, 5000, marks=pytest.mark.long)], ids=["share", "series"]
)
def test_every_command_line_is_served_or_refused(scratch: Scratch, first: int, count: int) -> None:
    tally = in_this_process(cases(first, count), scratch)
    assert tally.defects == []
    assert tally.counts["served"] > count / 20
    assert tally.counts["refused"] > count / 20
