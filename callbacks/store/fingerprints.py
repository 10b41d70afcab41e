"""Fingerprint of the project's own code that a stage depends on."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

OWN_PACKAGES = ("twinlens.attribution", "twinlens.models")
"""Packages whose imports are followed; callbacks name the modules they depend on themselves."""


def with_imports(modules: Iterable[str]) -> list[str]:
    """Modules and everything of `OWN_PACKAGES` that they import, directly or not.

    A new file beside a method, or a change in another method, thus leaves its stored scores valid.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _own_imports(name)
    return sorted(found)


@cache  # a process imports its code once, and parsing it anew for every stage takes a noticeable time
def _own_imports(module: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    names: list[str] = []
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name for name in submodules if _is_module(name)] or [node.module]
    return tuple(name for name in names if name.startswith(OWN_PACKAGES))


def _is_module(name: str) -> bool:
    if not name.startswith(OWN_PACKAGES):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def fingerprint_of(inputs: Mapping[str, Any]) -> str:
    """sha256 of plain values, independent of the order of keys."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def code_hash(modules: Iterable[str]) -> str:
    """sha256 over the source of modules (packages: their own files), so that a code change redoes its stage only."""
    digest = hashlib.sha256()
    for name in sorted(set(modules)):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(name)
        origin = Path(spec.origin)
        for file in sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
