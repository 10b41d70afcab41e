"""Fingerprints: what identifies a stage's inputs, and the code among them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from twinlens.callbacks.store.source_code import ModuleCode, is_library, module_code, module_of, version_of
from twinlens.callbacks.store.without_effect import LIBRARIES, is_without_effect

TARGET = "_target_"
"""Key of a setting that names a class."""


def fingerprint_of(inputs: Mapping[str, Any]) -> str:
    """sha256 of plain values, independent of the order of keys; of a `_target_` its name counts, not its module."""
    text = json.dumps(without_modules(inputs), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def code_of(*parts: Any) -> str:
    """sha256 of the code that a stage's numbers depend on: what its modules mean, not how they are written or called.

    Syntax trees of the modules of all parts, and of the modules of the project (or of the user's own) that these reach
    by import; without those of `without_effect`, unless a part lies in them. Then major and minor versions of the
    libraries that these modules import.

    Args:
        parts: modules or their names, classes, functions, objects (their classes count) and settings (every `_target_`
            in them counts).

    Raises:
        UserError: a module without a source file.
    """
    modules = {module for part in parts for module in _modules_of(part)}
    found = reached(module for module in modules if not is_library(module))
    libraries = {module.partition(".")[0] for module in modules if is_library(module)}
    libraries |= {library for code in found.values() for library in code.libraries}
    versions = {library: version_of(library) for library in libraries - LIBRARIES.keys()}
    trees = sorted([code.tree, _imported(code, found)] for code in found.values())
    text = json.dumps([trees, sorted(pair for pair in versions.items() if pair[1])])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def reached(modules: Iterable[str]) -> dict[str, ModuleCode]:
    """The modules, and those with an effect that they import, directly or not, by name."""
    found: dict[str, ModuleCode] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = module_code(name)
            waiting += [module for module, _ in found[name].imports if not is_without_effect(module)]
    return found


def _imported(code: ModuleCode, found: Mapping[str, ModuleCode]) -> list[list[str]]:
    """What a module asks of which other one, that one known by its content, so that it may be moved."""
    return sorted([found[name].tree, what] for name, what in code.imports if name in found)


def _modules_of(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    if isinstance(part, ModuleType):
        return [part.__name__]
    if isinstance(part, Mapping):
        return [module_of(target) or target for target in _targets_of(part)]
    named = part if hasattr(part, "__qualname__") else type(part)
    return [named.__module__]


def _targets_of(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get(TARGET), str):
            yield value[TARGET]
        for inner in value.values():
            yield from _targets_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _targets_of(inner)


def without_modules(value: Any) -> Any:
    """Plain values with the name of the class or function alone in every `_target_`."""
    if isinstance(value, Mapping):
        return {
            key: inner.removeprefix(f"{module_of(inner)}.")
            if key == TARGET and isinstance(inner, str)
            else without_modules(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_modules(inner) for inner in value]
    return value
