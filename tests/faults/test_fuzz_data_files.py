"""Data files with faults are read rightly or refused in one sentence: a share here, the long series on request."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.conftest import REPOSITORY
from tests.faults.fuzz_data_files import SECONDS, attempt, write_file

SHARE = 150
LONG = 5000
PROCESSES = 200


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


@pytest.mark.long
def test_some_as_processes(tmp_path: Path) -> None:
    """`python train.py … plan=true` ends with 0 or 2, says one sentence where it refuses, and writes nothing."""
    codes: Counter[int] = Counter()
    for seed in range(LONG, LONG + PROCESSES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        file = write_file(folder, seed)
        finished = subprocess.run(
            [sys.executable, str(REPOSITORY / "train.py"), "model=tiny", "data=table", f"data.path={file}",
             "data.text=[text]", "method=gradsim", "evaluation=accuracy", "trainer.accelerator=cpu", "plan=true"],
            cwd=folder, capture_output=True, text=True, timeout=4 * SECONDS, check=False,
        )  # fmt: skip
        codes[finished.returncode] += 1
        assert finished.returncode in (0, 2), f"seed {seed}: {finished.stderr}"
        assert "Traceback" not in finished.stderr, f"seed {seed}: {finished.stderr}"
        assert {path.name for path in tmp_path.iterdir()} == {str(n) for n in range(LONG, seed + 1)}
    print(f"{PROCESSES} processes: {dict(codes)}")
