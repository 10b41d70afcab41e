"""A changed module redoes the stage it belongs to and no other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import SMALL_DEMO

PARTS = ("attribution", "callbacks", "conf", "data", "models", "twinlens", "train.py", "pyproject.toml")
RUN = (*SMALL_DEMO, "method=[ig,gradsim]", "evaluation=faithfulness")


@pytest.fixture
def project(repository: Path, tmp_path: Path) -> Path:
    """A copy of the sources that a test may edit."""
    copy = tmp_path / "project"
    copy.mkdir()
    for part in PARTS:
        source = repository / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / part)
    return copy


def run(project: Path) -> dict[str, str]:
    """Stage → whether it was computed or read, as the copy's `python train.py` says."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        [sys.executable, "train.py", *RUN], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    lines = [line.partition(": ") for line in finished.stdout.splitlines()]
    return {name: rest.partition(" (")[0] for name, _, rest in lines if rest.startswith(("computed", "read from"))}


def made(project: Path, stage: str) -> set[str]:
    return {path.name for path in (project / "outputs" / "store" / stage).iterdir()}


def test_a_changed_method_is_computed_again_and_all_else_is_read(project: Path) -> None:
    assert run(project) == {"fit": "computed", "ig": "computed", "gradsim": "computed"}
    before = {stage: made(project, stage) for stage in ("fit", "examples", "attribute", "evaluate")}
    # the second module belongs to no stage that is stored
    for module in (
        project / "attribution" / "instance" / "gradsim.py",
        project / "callbacks" / "report" / "example_text.py",
    ):
        module.write_text(module.read_text(encoding="utf-8") + "\nCHANGED = True\n", encoding="utf-8")
    assert run(project) == {"fit": "read from the store", "ig": "read from the store", "gradsim": "computed"}
    after = {stage: made(project, stage) for stage in before}
    added = {stage: len(after[stage] - before[stage]) for stage in before}
    assert added == {"fit": 0, "examples": 0, "attribute": 1, "evaluate": 0}
