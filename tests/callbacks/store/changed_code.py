"""Fingerprints of code as it would be after a change, without touching a file of the project."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from twinlens.callbacks.store import fingerprints, source_code

ADDED = "\nADDED = 1\n"


def forget() -> None:
    """Let everything be read anew."""
    importlib.invalidate_caches()
    for function in vars(source_code).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@contextmanager
def changed(changes: Mapping[str, Callable[[str], str]]) -> Iterator[None]:
    """Modules read as if their text were another one.

    Args:
        changes: name of a module → its text as it is → as it is to be.
    """
    true = source_code.source_of
    texts = {source_code._file_of(name): change for name, change in changes.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_code, "source_of", lambda file: texts[file](true(file)))
        other = {name: source_code.module_code.__wrapped__(name) for name in changes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "module_code", lambda name: other.get(name) or source_code.module_code(name))
        yield


class Package:
    """A small package of a user's own.

    Args:
        folder: on the search path.
        name: of the package.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def write(self, files: Mapping[str, str]) -> None:
        """Replace the package by these files."""
        self.remove()
        for file, text in {"__init__.py": "", **files}.items():
            path = self.folder / self.name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def remove(self) -> None:
        """Remove its files, and what Python remembers of it."""
        for path in sorted(self.folder.rglob("*.py")):
            path.unlink()
        for module in [known for known in sys.modules if known.partition(".")[0] == self.name]:
            del sys.modules[module]
        forget()
