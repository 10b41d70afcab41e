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
FEW_FITS = {
    r"\blds\b|experiment=benchmark(?!/)": ("evaluation.lds.subsets=5", "evaluation.lds.seeds=[0]"),
    r"\bremoval\b|experiment=benchmark(?!/)": ("evaluation.removal.tests=1",),
    r"=unit_retraining\b": ("evaluation.unit_retraining.units=2", "evaluation.unit_retraining.seeds=[0,1]"),
    r"=cluster_removal\b": ("evaluation.cluster_removal.most=1",),
    r"damping=\S*auto": ("data.limit.validation=12",),
    r"retrained=": ("evaluation.certificate.retrained=0",),
    r"experiment=unified/(all|figure[26])": ("evaluation.retraining.seeds=[0]",),
}
"""What a line asks → settings that make of many fits a few."""
AS_IT_IS = re.compile(r"plan=true|--config-dir|--help|report\.of=")
OPTIONS = re.compile(r"(?<!\S)(?:-m|--help|--config-dir \S+|--config-name \S+)(?!\S)")
EXTRAS = {
    "data=digits": "sklearn",
    "launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "optuna": "optuna",
}
"""Word of a line → package of an extra, without which the line is left out."""
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
def reader(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages' lines name: `run`, a finished run, and `files`; `store` is that of all lines."""
    return once(tmp_path_factory, "reader", lambda folder: prepare(folder, shared_data))


def prepare(folder: Path, shared: Path) -> None:
    """Make the run and the files."""
    methods = "method=[ig,gradsim,influence]"
    run = run_here(folder, methods, "evaluation=[accuracy,uniqueness]", *SMALL_DEMO, f"hydra.run.dir={folder / 'run'}")
    assert run.code == 0, run.err
    write_files(folder / "files", folder / "run", shared)


@needs_peft
@pytest.mark.long
@pytest.mark.parametrize(("page", "found"), BY_PAGE, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_every_line_runs(page: Path, found: list[Block], reader: Path, shared_data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reader / "files", tmp_path / "reader")
    typed = [line for block in found for line in lines(block) if not why_not(line)]
    if page == EXTENDING:
        typed = []  # its two lines run in test_docs.py, with the files that the page shows
    failed = []
    for line in dict.fromkeys(typed):
        if any(word in line and not installed(package) for word, package in EXTRAS.items()):
            continue
        code, said = outcome(filled(line, reader / "run", shared_data, folder), folder, reader / "store")
        if code != 0:
            failed.append(f"{line}\n    {code}: {said}")
    assert failed == [], "\n".join(failed)


def outcome(line: str, folder: Path, store: Path) -> tuple[int, str]:
    """Exit code of a line, of a command at a small scale, and its last words on stderr."""
    line = re.sub(r"^(?:\w+=\S* )*python train\.py", "twinlens", line)
    words = shlex.split(line)
    if words[0] == "twinlens":
        run = run_here(folder, *small(line, store))
        return run.code, run.err[-600:]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert words[0] == "python", line
    ended = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr[-600:]


def small(line: str, store: Path) -> list[str]:
    """Arguments of a command: its options, settings that keep it small, its own settings, few fits."""
    options = OPTIONS.findall(line)
    own = shlex.split(OPTIONS.sub("", line))[1:]
    if "--help" in options or "report.of" in line:
        return [*shlex.split(" ".join(options)), *own]
    before: list[str] = []
    if not AS_IT_IS.search(line):
        before = [*SMALL, *SMALL_GENERATED] if not OTHER_DATA.search(line) else [*SMALL]
        if "data.select" in line:  # rows that a small demo may not have
            before = ["debug=fdr"]
        if "data=table" in line:  # small, and not of all splits
            before = ["trainer.max_epochs=1"]
    after = [setting for asked, settings in FEW_FITS.items() if re.search(asked, line) for setting in settings]
    if "trainer=" not in line:
        after.append("trainer.accelerator=cpu")
    return [*shlex.split(" ".join(options)), *before, *own, *after, f"paths.store={store}"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("page", "found"),
    [(page, found) for page, found in PYTHON if page.name not in ELSEWHERE],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_every_block_of_python_runs(
    page: Path, found: list[Block], reader: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page one behind the other, in one session, beside a finished run."""
    monkeypatch.chdir(tmp_path)
    stories = shared_data / "text" / "tinystories_1000.json"
    monkeypatch.setattr(sys, "argv", ["prompts.py", str(shared_data / "stories260k" / "hf"), str(stories), "out.jsonl"])
    names: dict[str, Any] = {}
    for block in found:
        exec(compile(block.text.replace("outputs/runs/…", str(reader / "run")), block.name, "exec"), names)
