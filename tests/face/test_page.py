"""Page on Python: every block of it runs, one behind the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import fenced


def blocks(repository: Path) -> list[str]:
    return list(fenced((repository / "docs" / "python.md").read_text(encoding="utf-8"), "python"))


def test_blocks_are_there_and_are_python(repository: Path) -> None:
    found = blocks(repository)
    assert len(found) == 5
    for block in found:
        compile(block, "docs/python.md", "exec")


@pytest.mark.long
def test_every_block_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(repository):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert {tuple(found.shape) for found in names["scores"].values()} == {(2, 10)}
    assert (tmp_path / "outputs" / "first" / "config.yaml").is_file()
