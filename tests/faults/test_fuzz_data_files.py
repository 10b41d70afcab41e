"""Data files with faults are read rightly or refused in one sentence: a share here, the long series on request."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.conftest import REPOSITORY
from tests.faults.fuzz_data_files import attempt

SHARE = 150
LONG = 5000


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(REPOSITORY / "models" / "tiny")


def tries(folder: Path, seeds: range, tokenizer: Any) -> Counter[str]:
    """How often each outcome came up; fails with what was said where it is a fault."""
    counts: Counter[str] = Counter()
    faults = []
    for seed in seeds:
        scratch = folder / "scratch"
        scratch.mkdir()
        outcome = attempt(scratch, seed, tokenizer)
        counts[outcome.kind] += 1
        if outcome.kind not in ("read", "refused"):
            faults.append(f"{outcome.kind}: {outcome.said}")
        for file in scratch.iterdir():
            file.unlink()
        scratch.rmdir()
    assert not faults, "\n".join(faults)
    return counts


def test_a_share_of_the_series(tmp_path: Path, tokenizer: Any) -> None:
    counts = tries(tmp_path, range(SHARE), tokenizer)
    assert min(counts["read"], counts["refused"]) > SHARE // 5, counts  # the generator makes both kinds


@pytest.mark.long
def test_the_long_series(tmp_path: Path, tokenizer: Any) -> None:
    counts = tries(tmp_path, range(LONG), tokenizer)
    print(f"{LONG} data files: {dict(counts)}")
    assert min(counts["read"], counts["refused"]) > LONG // 5, counts
