"""Small atomic file operations: write to a partial path and rename."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.conf.checking.secrets import hide
from twinlens.conf.checking.written_config import to_yaml


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing, without what is secret by its value."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(hide(text), encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML in the given order of keys, whole or not at all."""
    write_text(path, to_yaml(value))


def remove_partial_files(folder: Path, pattern: str = ".*.partial") -> None:
    """Remove what killed processes left half-written below a folder."""
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)


def link(target: Path, at: Path) -> None:
    """A relative symbolic link `at` → `target`, replacing an older one, so that the tree can be moved as a whole.

    Only the first process links.
    """
    if not is_first_process():
        return
    at.parent.mkdir(parents=True, exist_ok=True)
    partial = at.with_name(f".{at.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target.resolve(), at.parent.resolve()))
    os.replace(partial, at)


def remove_empty(folder: Path) -> None:
    """Remove the run's folder that Hydra has made, and what it made above it below the working directory, if empty."""
    while folder.resolve().is_relative_to(Path.cwd()) and folder.resolve() != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
