"""Notebooks as they are kept: whole, without traces of a machine; in the long series executed, with equal numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import twinlens
from tests.notebooks import NOTEBOOKS, outputs, read
from twinlens.answers import Answer
from twinlens.method_names import files as method_files
from twinlens.runs import Run
from twinlens.score_tables import Neuron, Scores

NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
PLACES = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|usr|Users|opt|var)/|[A-Z]:\\\\|site-packages")
"""Of a machine: what no output names."""
TEXTS = ("page", "stdout", "text/html", "text/plain")
KINDS = {"answer": Answer, "against": Answer, "about": Answer, "run": Run, "neuron": Neuron}
"""Names in the notebooks → the class whose attributes they have."""
MOST_BYTES = 2_000_000
RELATIVE, ABSOLUTE = 0.02, 0.02
"""How near numbers are: fits on other processors differ in the last digits."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(notebook: Any) -> Iterator[tuple[Any, ast.Module]]:
    """Cells of code; a line that calls the shell is read as its target."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield cell, ast.parse(re.sub(r"(?m)= !.*$", "= []", cell.source))


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_hour", "your_own_model"]


@each_notebook
def test_it_is_kept_as_executed(path: Path) -> None:
    notebook = read(path)
    cells = [cell for cell, _ in code_of(notebook)]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = list(outputs(notebook))
    kinds = {kind for _, kind, _ in shown}
    assert {"image/png", "page", "text/html"} <= kinds
    assert kinds.isdisjoint({"error", "stderr"})  # no warnings either
    assert [(kind, PLACES.findall(text)) for _, kind, text in shown if kind in TEXTS and PLACES.search(text)] == []
    assert path.stat().st_size < MOST_BYTES
    titled = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert len(titled) >= len(cells) / 2  # it teaches


@each_notebook
def test_names_in_its_cells_exist(path: Path) -> None:
    """What is undefined altogether is found by ruff, which reads notebooks."""
    used: dict[str, set[str]] = {}
    texts: set[str] = set()
    for _, tree in code_of(read(path)):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "methods":
                texts |= set(ast.literal_eval(node.value))
    assert used["twinlens"] <= set(twinlens.__all__)
    for name, kind in KINDS.items():
        there = {*dir(kind), *getattr(kind, "__annotations__", {}), "run", "files"}
        assert used.get(name, set()) <= there
    assert texts <= {file.stem for file in method_files()}
    assert "to_pandas" in dir(Scores)


def shape_and_numbers(text: str) -> tuple[str, list[float]]:
    """A text without its numbers and their room, and the numbers."""
    numbers = [float(found.replace("−", "-")) for found in NUMBER.findall(text)]
    return re.sub(r"[\s│|_-]+", " ", NUMBER.sub("#", text)), numbers


@pytest.mark.long
@each_notebook
def test_it_shows_what_it_shows_today(path: Path, tmp_path: Path) -> None:
    from tests.notebooks import executed

    kept, now = (list(outputs(notebook)) for notebook in (read(path), executed(path, tmp_path)))
    assert [(cell, kind) for cell, kind, _ in now] == [(cell, kind) for cell, kind, _ in kept]
    for (cell, kind, before), (_, _, after) in zip(kept, now, strict=True):
        if kind in ("text/plain", "stdout", "text/html") and "<Figure size" not in before:
            (shape, numbers), (shape_now, numbers_now) = map(shape_and_numbers, (before, after))
            assert shape_now == shape, cell
            assert numbers_now == pytest.approx(numbers, rel=RELATIVE, abs=ABSOLUTE), cell
