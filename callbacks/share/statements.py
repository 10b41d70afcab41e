"""Statements that the classes of a configuration make: the papers they come from, the licence of what they read.

A class states each once, as `KEY`, or as `KEY if SETTING=VALUE|VALUE and SETTING=VALUE` where it holds for some
settings alone. Nothing is built for it, so that a finished run's config.yaml is enough.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twinlens.conf.checking.former_names import current_name
from twinlens.conf.checking.shipped import shown as written

_STATEMENT = re.compile(r"(?P<what>.+?)(?: if (?P<conditions>[\w.]+=\S+(?: and [\w.]+=\S+)*))?")


@dataclass(frozen=True)
class Statement:
    """One statement of a class.

    Attributes:
        what: what holds.
        where: setting → the values for which it does; empty: always.
    """

    what: str
    where: Mapping[str, tuple[str, ...]]

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether it holds for the settings of a configuration's node."""
        return all(written(settings.get(name)) in values for name, values in self.where.items())


def parsed(text: str) -> Statement:
    """A statement as a class writes it."""
    found = _STATEMENT.fullmatch(text)
    conditions = (found and found["conditions"]) or ""
    pairs = [condition.split("=", 1) for condition in conditions.split(" and ") if condition]
    return Statement(found["what"] if found else text, {name: tuple(values.split("|")) for name, values in pairs})


def stated(node: Any, attribute: str) -> list[str]:
    """What the class of a configuration's node states in `attribute` for these settings, each once.

    Classes of twinlens are imported by name; those of others are asked only where they are imported already, since to
    read a finished run's files must run nobody's code.
    """
    if not isinstance(node, Mapping):
        return []
    owner = _class_of(str(node.get("_target_", "")))
    statements = getattr(owner, attribute, ()) if owner is not None else ()
    found = [statement.what for statement in map(parsed, statements) if statement.holds(node)]
    return list(dict.fromkeys(found))


def _class_of(target: str) -> Any:
    module, _, name = (current_name(target) or target).rpartition(".")
    if module.startswith("twinlens."):
        try:
            return getattr(importlib.import_module(module), name, None)
        except ImportError:
            return None
    return getattr(sys.modules.get(module), name, None)
