"""Configuration that a run writes down: values only, no absolute path, no secret, ready to be run again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from omegaconf._utils import get_yaml_loader

from twinlens.conf.checking.annotations import UNKNOWN
from twinlens.conf.checking.plain_values import plain, without_hydra
from twinlens.conf.checking.push_names import KEYS
from twinlens.conf.checking.secrets import holds_secret, is_secret, scrub

_PATH_IN_OVERRIDE = re.compile(r"""(^|[\[,:'"]|file://)(/[\w.~-][^,\]}'"]*)""")
_DROPPED = object()


class ReplayDumper(yaml.SafeDumper):
    """Writes YAML that both plain YAML and Hydra read back as it was.

    Hydra's reader takes more texts for numbers than the writer of PyYAML expects (1E50): these are quoted as well.
    """


for _first, _resolvers in get_yaml_loader().yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        ReplayDumper.add_implicit_resolver(_tag, _pattern, [_first])


def redact(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as plain values that may be shown to anyone.

    Interpolations are resolved; absolute paths become relative to the current directory; keys that hold secrets
    (password, secret, api_key, token, not pad_token and its like) and values in the form of well-known access tokens
    are left out. Values that only Hydra knew are left out as well: resolve the configuration inside the job.
    """
    values = plain(without_hydra(config) if isinstance(config, DictConfig) else config)
    return {key: value for key, value in _clean_mapping(values).items() if key != "hydra"}


def replayable(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """`redact(config)` in a form that `--config-dir RUN --config-name config` composes to the same values.

    The defaults list takes Hydra's own settings (the pattern of run directories) from the project's `hydra/default`;
    the values follow it. A literal `${` is escaped, since reading the file would resolve it. `allow_targets` is
    emptied: a run directory cannot grant itself anything. Nor does it say where a run is pushed.
    """
    values = {key: literal(value) for key, value in redact(config).items() if key != "defaults"}
    if "allow_targets" in values:
        values["allow_targets"] = []
    values.update((key, None) for key in KEYS if key in values)
    return {"defaults": [{"hydra": "default"}, "_self_"], **values}


def redact_overrides(overrides: Sequence[str]) -> list[str]:
    """Command-line overrides with absolute paths made relative and secrets left out."""
    cleaned: list[str] = []
    for override in overrides:
        key, separator, value = override.partition("=")
        if is_secret(key.lstrip("+~").rpartition(".")[2], value):
            continue
        shown = _PATH_IN_OVERRIDE.sub(lambda match: match[1] + relative(match[2]), value)
        cleaned.append(scrub(key + separator + shown))
    return cleaned


def literal(value: Any) -> Any:
    """Plain values in a form that OmegaConf reads back as the same values: a literal `${` is escaped."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    # An odd backslash before `${` is what OmegaConf reads as a literal; those already there are doubled.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def to_yaml(value: Any) -> str:
    """Plain values as YAML, in the given order of keys."""
    return yaml.dump(value, Dumper=ReplayDumper, sort_keys=False, allow_unicode=True)


def relative(text: str) -> str:
    """An absolute path relative to the current directory; any other text unchanged."""
    scheme = "file://" if text.startswith("file://") else ""
    path = text[len(scheme) :]
    # Templates and multi-line texts may begin with a slash without being paths.
    if not os.path.isabs(path) or any(sign in path for sign in "{}\n"):
        return text
    return scheme + os.path.relpath(path)


def _clean(value: Any, key: str) -> Any:
    if value is UNKNOWN or is_secret(key, value):
        return _DROPPED
    if isinstance(value, Mapping):
        return _clean_mapping(value)
    if isinstance(value, list | tuple):
        cleaned = (_clean(item, key) for item in value)
        return [item for item in cleaned if item is not _DROPPED]
    if isinstance(value, Path):
        return relative(str(value))
    if isinstance(value, str):
        return scrub(relative(value))
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _clean_mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = {str(key): _clean(item, str(key)) for key, item in value.items() if not holds_secret(str(key))}
    return {key: item for key, item in cleaned.items() if item is not _DROPPED}
