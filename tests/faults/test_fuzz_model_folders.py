"""Generated model folders: a share in every run of the suite, a hundred in `make test-long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz_model_folders import tries


@pytest.mark.parametrize(
    ("first", "count"), [(2_000, 12), pytest.param(0, 100, marks=pytest.mark.long)], ids=["share", "series"]
)
def test_every_model_folder_is_read_as_transformers_reads_it_or_refused(tmp_path: Path, first: int, count: int) -> None:
    counts, faults = tries(tmp_path, range(first, first + count), one_size=count < 100)
    print(f"{count} model folders: {dict(counts)}")
    assert faults == []
    assert min(counts["read"], counts["refused"]) > count // 5
