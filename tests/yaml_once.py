"""YAML texts parsed once per process: every command of a test reads the same files under conf/ three times."""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from typing import Any

import yaml


class _Named(io.StringIO):
    """A text with the name of the file that it was read from, which errors of YAML tell."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def remember(most: int = 1000) -> None:
    """From now on `yaml.load` parses a text once and gives what it holds anew each time; errors are not remembered."""
    load = yaml.load
    known: dict[tuple[str, str], bytes] = {}

    def remembering(stream: Any, Loader: Any) -> Any:
        name = getattr(stream, "name", None)
        text = stream.read() if hasattr(stream, "read") else stream
        if not isinstance(text, str):
            return load(text, Loader)
        key = f"{Loader.__module__}.{Loader.__qualname__}", text
        if key not in known:
            found = load(text if name is None else _Named(text, name), Loader)
            if len(known) < most:
                with suppress(RecursionError):  # nested deeply on purpose
                    known[key] = pickle.dumps(found)
            return found
        return pickle.loads(known[key])

    yaml.load = remembering
