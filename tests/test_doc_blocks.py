"""Code blocks of README and docs run: every line of bash, every block of Python, every file of YAML.

The quick tests hold what is not run to its mark. The long series runs the rest, commands at a small scale.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.adapters import needs_peft
from tests.doc_blocks import REPOSITORY, Block, blocks, filled, lines, why_not, write_files
from tests.running import SMALL_DEMO, installed, once, run_here
from tests.test_docs import files_in

BASH = list(blocks("bash"))
EXTENDING = REPOSITORY / "docs" / "extending.md"
BY_PAGE = [(page, list(found)) for page, found in groupby(BASH, key=lambda block: block.page)]
PYTHON = [(page, list(found)) for page, found in groupby(blocks("python"), key=lambda block: block.page)]
SMALL = ("debug=fdr", "data.limit.train=48", "data.limit.test=12")
SMALL_GENERATED = tuple(word for word in SMALL_DEMO if word.startswith("data.n_"))
OTHER_DATA = re.compile(r"\bdata=|experiment=(neuron_level|texts|averitec)|model=facts")
AS_IT_IS = re.compile(r"plan=true|--help|report\.of=|--config-dir")
ELSEWHERE = ("extending.md", "python.md")
"""Pages whose blocks another test runs: the files of extending.md together (test_docs.py), python.md with assertions
(face/test_page.py)."""


def stated() -> int:
    """How many lines may be left out at most, as CONTRIBUTING.md says."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"At most (\d+) lines are not run", text)
    assert found
    return int(found[1])


@pytest.mark.parametrize("block", BASH, ids=lambda block: block.name)
def test_what_is_not_run_is_marked_with_its_reason(block: Block) -> None:
    reasons = sorted({why_not(line) for line in lines(block)} - {""})
    assert list(block.marks) == reasons, f"write <!-- not run: {', '.join(reasons)} --> above the block, or take it off"


def test_what_is_not_run_is_bounded_as_stated() -> None:
    left_out = Counter(reason for block in BASH for line in lines(block) if (reason := why_not(line)))
    assert sum(left_out.values()) <= stated(), left_out
    assert sum(len(lines(block)) for block in BASH) > 3 * stated()


@pytest.mark.parametrize("page", [page for page, _ in PYTHON], ids=lambda page: page.name)
def test_every_block_of_python_is_python(page: Path) -> None:
    for block in blocks("python"):
        if block.page == page:
            compile(block.text, block.name, "exec")


def test_every_block_of_yaml_is_a_file_that_another_test_uses() -> None:
    shown = files_in(EXTENDING).values()
    for block in blocks("yaml"):
        assert isinstance(yaml.safe_load(block.text), dict), block.name
        assert block.text in shown, f"{block.name}: show its path in the line above, as docs/extending.md does"


@pytest.fixture(scope="session")
def reader(trained: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages' lines name."""
    return (
        once(tmp_path_factory, "reader", lambda folder: write_files(folder / "files", trained, shared_data)) / "files"
    )


@needs_peft
@pytest.mark.long
@pytest.mark.parametrize(("page", "found"), BY_PAGE, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_every_line_runs(
    page: Path, found: list[Block], trained: Path, reader: Path, shared_data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(reader, tmp_path / "reader")
    typed = [line for block in found for line in lines(block) if not why_not(line)]
    if page == EXTENDING:
        typed = []  # its two lines run in test_docs.py, with the files that the page shows
    failed = []
    for line in dict.fromkeys(typed):
        launcher = re.search(r"hydra/launcher=(\w+)", line)
        if launcher and not installed(f"hydra_plugins.hydra_{launcher[1]}_launcher"):
            continue
        code, said = outcome(filled(line, trained, shared_data, folder), folder)
        if code != 0:
            failed.append(f"{line}\n    {code}: {said}")
    assert failed == [], "\n".join(failed)


def outcome(line: str, folder: Path) -> tuple[int, str]:
    """Exit code of a line at a small scale, and the last words on stderr."""
    line = re.sub(r"^(?:\w+=\S* )*python train\.py", "twinlens", line)
    words = shlex.split(line)
    if words[0] == "twinlens":
        arguments = words[1:]
        if not AS_IT_IS.search(line):
            arguments = [*SMALL, *(() if OTHER_DATA.search(line) else SMALL_GENERATED), *arguments]
        if "trainer=" not in line and "--help" not in line and "report.of" not in line:
            arguments.append("trainer.accelerator=cpu")
        run = run_here(folder, *arguments)
        return run.code, run.err[-600:]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert words[0] == "python", line
    ended = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr[-600:]


@pytest.mark.long
@pytest.mark.parametrize(
    ("page", "found"),
    [(page, found) for page, found in PYTHON if page.name not in ELSEWHERE],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_every_block_of_python_runs(
    page: Path, found: list[Block], trained: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page one behind the other, in one session, beside a finished run."""
    monkeypatch.chdir(tmp_path)
    stories = shared_data / "text" / "tinystories_1000.json"
    monkeypatch.setattr(sys, "argv", ["prompts.py", str(shared_data / "stories260k" / "hf"), str(stories), "out.jsonl"])
    names: dict[str, Any] = {}
    for block in found:
        exec(compile(block.text.replace("outputs/runs/…", str(trained)), block.name, "exec"), names)
