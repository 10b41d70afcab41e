"""A changed module redoes the stage it belongs to and no other; what no fingerprint covers changes no score."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from tests.running import SMALL_DEMO, run_here, stages_of
from twinlens.callbacks.store import source_code
from twinlens.callbacks.store.without_effect import CHANGES_NO_NUMBER

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


def run(project: Path, *more: str) -> dict[str, str]:
    """Stage → whether it was computed or read, as the copy's `python train.py` says."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        [sys.executable, "train.py", *RUN, *more],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return stages(finished.stdout)


def stages(out: str) -> dict[str, str]:
    """Fit and methods → whether they were computed or read, as a run says.

    What the model is made of is no number, and is checked with its weights in any case.
    """
    told = stages_of(out)
    return {name: said for name, said in told.items() if name != "anatomy" and not name.startswith("predict ")}


def made(project: Path, stage: str) -> set[str]:
    return {path.name for path in (project / "outputs" / "store" / stage).iterdir()}


def scores(store: Path) -> dict[str, dict[str, list[Any]]]:
    """All stored lists of a store's two methods."""
    found = {}
    for folder in (store / "attribute").iterdir():
        name = yaml.safe_load((folder / "method.yaml").read_text(encoding="utf-8"))["name"]
        found[name] = datasets.load_from_disk(str(folder / "test")).to_dict()
    return found


def change_copies(project: Path, listed: Sequence[Path]) -> None:
    """Change every constant in the copies of modules and, of packages, of all their modules."""
    root = Path(source_code._file_of("twinlens").parents[1])  # type: ignore[union-attr]
    for original in listed:
        copied = project / original.relative_to(root)
        for file in copied.parent.glob("*.py") if copied.name == "__init__.py" else [copied]:
            change_constants(file)


def edit(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def move(project: Path, old: str, new: str) -> None:
    """Rename a module and everything that names it."""
    before, after = (f"twinlens.{path.removesuffix('.py').replace('/', '.')}" for path in (old, new))
    (project / old).rename(project / new)
    for file in (*project.rglob("*.py"), *project.rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        if before in text:
            file.write_text(re.sub(rf"\b{re.escape(before)}\b", after, text), encoding="utf-8")


def change_constants(file: Path) -> None:
    """Double every number that a module gives a name, and add one."""
    text = file.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.BinOp):
            line = ast.get_source_segment(text, node)
            if line is not None and re.fullmatch(r"[A-Z_]+ = [-\d.e* ]+", line):
                text = text.replace(line, line.replace(" = ", " = 2 * "))
    file.write_text(text + "\nADDED = 1\n", encoding="utf-8")


@pytest.mark.long  # the same from fingerprints alone: test_fingerprints.py
def test_a_run_after_changes_computes_what_they_can_change(project: Path) -> None:
    """Moved files, remarks and other constants where none matters, and a method that is another one."""
    # of the sources as they are, which this process has imported
    assert stages(run_here(project, *RUN).out) == {"fit": "computed", "ig": "computed", "gradsim": "computed"}
    before = {stage: made(project, stage) for stage in ("fit", "examples", "attribute", "evaluate")}
    change_copies(project, [file for file in excluded() if file.parent.name != "store"])
    edit(
        project / "callbacks" / "fit" / "stage.py",
        ('"""The fit stage: train', '"""The fit: train'),
        ("\n\n\n", "\n\n\n# a remark\n"),
    )
    edit(project / "attribution" / "neuron" / "protocol.py", ('"""Protocol of', '"""Tells what a'))
    move(project, "data/collate.py", "data/padding.py")
    move(project, "attribution/neuron/ig.py", "attribution/neuron/straight_path.py")
    # the second module belongs to no stage that is stored
    for module in ("attribution/instance/gradsim.py", "callbacks/report/example_text.py"):
        change_constants(project / module)
    assert run(project) == {"fit": "read from the store", "ig": "read from the store", "gradsim": "computed"}
    after = {stage: made(project, stage) for stage in before}
    added = {stage: len(after[stage] - before[stage]) for stage in before}
    assert added == {"fit": 0, "examples": 0, "attribute": 1, "evaluate": 0}


@pytest.mark.long
def test_other_constants_of_the_store_change_no_score(project: Path) -> None:
    """They name and check entries: with others, what is there counts as damaged."""
    run_here(project, *RUN)
    before = scores(project / "outputs" / "store")
    change_copies(project, [file for file in excluded() if file.parent.name == "store"])
    assert set(run(project, "paths.store=another").values()) == {"computed"}
    assert scores(project / "another") == before


def excluded() -> list[Path]:
    """Modules that no fingerprint covers."""
    files = [source_code._file_of(name) for name in CHANGES_NO_NUMBER]
    assert None not in files
    return [file for file in files if file is not None]
