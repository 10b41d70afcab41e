"""What Hydra does for every command again and for nothing: a command composes the same files three times.

A third of the time of a composition goes away; what comes of it is the same.
"""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from functools import lru_cache
from typing import Any

import omegaconf._utils
import omegaconf.base
import yaml
from hydra._internal import defaults_list
from omegaconf import grammar_parser

MOST = 1000
"""Texts that are remembered."""


def do_once() -> None:
    """From now on, in this process, a text is parsed once, and maps are made for those who ask."""
    yaml.load = _remembering(yaml.load)
    # trees are read and never changed; errors are not remembered
    omegaconf.base.parse = omegaconf._utils.parse = lru_cache(MOST)(grammar_parser.parse)
    defaults_list._create_interpolation_map = _for_interpolations(defaults_list._create_interpolation_map)


class _Named(io.StringIO):
    """A text with the name of the file that it was read from, which errors of YAML tell."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def _remembering(load: Any) -> Any:
    """`yaml.load` that gives what a text holds anew each time; errors are not remembered."""
    known: dict[tuple[str, str], bytes] = {}

    def remembering(stream: Any, Loader: Any) -> Any:
        name = getattr(stream, "name", None)
        text = stream.read() if hasattr(stream, "read") else stream
        if not isinstance(text, str):
            return load(text, Loader)
        key = f"{Loader.__module__}.{Loader.__qualname__}", text
        if key not in known:
            found = load(text if name is None else _Named(text, name), Loader)
            if len(known) < MOST:
                with suppress(RecursionError):  # nested deeply on purpose
                    known[key] = pickle.dumps(found)
            return found
        return pickle.loads(known[key])

    return remembering


def _for_interpolations(create: Any) -> Any:
    """The map of choices, which only entries of a defaults list that name another choice read."""

    def created(overrides: Any, entries: Any, self_added: bool) -> Any:
        return create(overrides, entries, self_added) if any(entry.is_interpolation() for entry in entries) else None

    return created
