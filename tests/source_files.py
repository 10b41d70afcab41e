"""Files of the checkout as tests read them: what there is, what they say, what they import."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("attribution", "models", "data", "callbacks", "conf")
"""Folders of the checkout, each a package below `twinlens`."""


def sources(*folders: str) -> list[Path]:
    """Python files below the folders, and train.py where it is named."""
    files = [file for folder in folders for file in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [*files, REPOSITORY / "train.py"] if "train" in folders else files


def name_of(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def tree(source: str) -> ast.Module:
    """What a module says, read once for all tests."""
    return ast.parse(source)


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """All of it, in no order that matters."""
    return tuple(ast.walk(tree(source)))


def imported(source: str, package: str = "") -> Iterator[str]:
    """Full dotted names of all that a module imports, wherever in it the import stands.

    Args:
        package: the package that the module lies in, to resolve relative imports.
    """
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            yield from (str(given.value) for given in node.args[:1] if isinstance(given, ast.Constant))


def called(node: ast.Call) -> str:
    """Last part of the name of what is called."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def module_of(file: Path) -> str:
    """Name that a file of the checkout is imported by."""
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    within = parts and parts[0] in (*PACKAGES, "train")
    return ".".join(("twinlens", *parts) if within else parts)


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def imports_of(*folders: str) -> list[tuple[str, str]]:
    """(file, imported name) of every import below the folders."""
    pairs = []
    for file in sources(*folders):
        package = module_of(file.parent / "__init__.py")
        pairs += [(name_of(file), name) for name in imported(text(file), package)]
    return pairs


def git(*arguments: str) -> list[str]:
    """Lines that git prints about the checkout; skips where this is none."""
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs git")
    if done.returncode == 128:
        pytest.skip("needs a git checkout")
    return done.stdout.splitlines()
