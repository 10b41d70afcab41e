"""Examples in docstrings of attribution/: every public class has one, and each prints what it says."""

from __future__ import annotations

import ast
import doctest
import importlib

import pytest
import torch

from tests.source_files import module_of, name_of, sources, text

FILES = sources("attribution")
WITHOUT = {
    "LayerwiseInverse": "a base class that cannot be built; its two subclasses in the same file have examples",
}
"""Public classes that have no example, each with the reason."""


def public_classes(source: str) -> list[ast.ClassDef]:
    """Classes at the top of a module whose names have no underscore in front."""
    found = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return [node for node in found if not node.name.startswith("_")]


def has_example(node: ast.ClassDef) -> bool:
    """Whether a class's own docstring has a section `Example:` with code in it."""
    section = (ast.get_docstring(node) or "").partition("\nExample:\n")[2]
    return section.lstrip().startswith(">>> ")


def docstrings_with_examples() -> list[tuple[str, doctest.DocTest]]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for file in FILES:
        module = importlib.import_module(module_of(file))
        # no names of the module: an example imports all that it uses, as a reader has to
        found += [(test.name, test) for test in finder.find(module, globs={}) if test.examples]
    return found


EXAMPLES = dict(docstrings_with_examples())


def test_every_public_class_has_an_example() -> None:
    classes = [(name_of(file), node) for file in FILES for node in public_classes(text(file))]
    assert len(classes) > 100, "has the walk lost its way?"
    assert [(file, node.name) for file, node in classes if not has_example(node) and node.name not in WITHOUT] == []
    names = {node.name for _, node in classes if not has_example(node)}
    assert names == set(WITHOUT), "an exception that is none any more"


def test_classes_without_an_example_are_seen() -> None:
    source = """
class A:
    '''It.

    Example:
        >>> 1
        1
    '''

class B:
    '''It.'''

class _C: ...
"""
    assert [(node.name, has_example(node)) for node in public_classes(source)] == [("A", True), ("B", False)]


def complaints(example: doctest.DocTest) -> str:
    """What an example prints other than it says, empty where nothing is wrong."""
    printed: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example, out=printed.append)
    return "".join(printed)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example(name: str) -> None:
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    assert complaints(EXAMPLES[name]) == ""
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before


def test_wrong_examples_are_seen() -> None:
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "sum", None, None)
    assert "Got:\n    2" in complaints(example)
