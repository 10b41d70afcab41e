"""Small atomic file operations: write to a partial path and rename."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.conf.checking.secrets import hide
from twinlens.conf.checking.written_config import to_yaml


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing, without what is secret by its value."""
    partial = partial_of(path)
    partial.write_text(hide(text), encoding="utf-8")
    put(partial, path)


def partial_of(path: Path) -> Path:
    """Where a file is written before it gets its name; no two writers have the same, in whatever container they run."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


def put(partial: Path, path: Path) -> None:
    """Give a written file its name, whatever stands there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)  # which no writer leaves
    os.replace(partial, path)


def remove(path: Path) -> None:
    """Remove a folder, a file or a link, which is not followed; nothing where there is none.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML in the given order of keys, whole or not at all."""
    write_text(path, to_yaml(value))


def remove_partial_files(folder: Path, pattern: str = ".*.partial", but: str = "") -> None:
    """Remove what killed processes left half-written below a folder, but for a file of one name."""
    for path in sorted(folder.rglob(pattern)):
        if (path.is_file() or path.is_symlink()) and path.name != but:
            path.unlink(missing_ok=True)


def link(target: Path, at: Path) -> None:
    """A relative symbolic link `at` → `target`, replacing an older one, so that the tree can be moved as a whole.

    Only the first process links.
    """
    if not is_first_process():
        return
    at.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(at)
    partial.symlink_to(os.path.relpath(target.resolve(), at.parent.resolve()))
    put(partial, at)


def remove_empty(folder: Path) -> None:
    """Remove the run's folder that Hydra has made, and what it made above it below the working directory, if empty."""
    while folder.resolve().is_relative_to(Path.cwd()) and folder.resolve() != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
