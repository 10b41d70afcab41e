"""Shipped configuration files as plain values: what an option is where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from twinlens.conf.checking.signatures import parameters_of

FOLDER = Path(__file__).parents[1]


@lru_cache
def shipped(name: str, group: str = "") -> dict[str, Any] | None:
    """Values of conf/<group>/<name>.yaml without its defaults list, interpolations as they are written.

    None where no such file is shipped.
    """
    path = next((file for file in (FOLDER / group).glob("*.yaml") if file.stem == name), None)
    if path is None:
        return None
    values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return {str(key): value for key, value in values.items() if key != "defaults"}


def non_default(name: str, group: str, node: Mapping[str, Any], target: type | None = None) -> dict[str, Any]:
    """Options of an entry that differ from the shipped file of its name, or else from the defaults of its class.

    Args:
        name: of the entry, such as `ig`.
        group: `method` or `evaluation`.
        node: its configuration, plain values.
        target: its class, for a name that is not shipped; None: then nothing is known to differ.
    """
    known = shipped(name, group)
    if known is None:
        parameters = {} if target is None else parameters_of(target)
        known = {key: None if p.default is p.empty else p.default for key, p in parameters.items()}
        node = {key: value for key, value in node.items() if key in known}
    return {key: value for key, value in node.items() if key not in known or not same(value, known[key])}


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, a list as good as a tuple."""
    one, other = (list(value) if isinstance(value, tuple) else value for value in (one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def shown(value: Any) -> str:
    """A plain value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{shown(item)}" for key, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
