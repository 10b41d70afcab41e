"""Configuration that a run writes down: values only, no absolute path, no secret, ready to be run again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from twinlens.conf.checking.annotations import UNKNOWN
from twinlens.conf.checking.plain_values import plain, without_hydra

_ALWAYS_SECRET = frozenset({"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"})
_KEY_OWNERS = frozenset({"api", "access", "private", "secret", "auth", "encryption", "ssh"})
_TEXT_TOKENS = frozenset({"pad", "eos", "bos", "unk", "sep", "cls", "mask", "special", "last", "answer", "per", "end"})
_SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|wandb_v1_\w{20,})"
)
_URL_CREDENTIALS = re.compile(r"(\w[\w+.-]*://)[^/@\s]+@")
_PATH_IN_OVERRIDE = re.compile(r"""(^|[\[,:'"]|file://)(/[\w.~-][^,\]}'"]*)""")
_SETTING = re.compile(r"""([\w.]+=['"]?)([^\s,;:'"\]}]+)""")
_DROPPED = object()
HIDDEN = "…"
"""Stands in a message where a secret stood."""


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
    emptied: a run directory cannot grant itself anything.
    """
    values = {key: _escape(value) for key, value in redact(config).items() if key != "defaults"}
    if "allow_targets" in values:
        values["allow_targets"] = []
    return {"defaults": [{"hydra": "default"}, "_self_"], **values}


def redact_overrides(overrides: Sequence[str]) -> list[str]:
    """Command-line overrides with absolute paths made relative and secrets left out."""
    cleaned: list[str] = []
    for override in overrides:
        key, separator, value = override.partition("=")
        if is_secret(key.lstrip("+~").rpartition(".")[2], value):
            continue
        shown = _PATH_IN_OVERRIDE.sub(lambda match: match[1] + relative(match[2]), value)
        cleaned.append(key + separator + _URL_CREDENTIALS.sub(r"\1", shown))
    return cleaned


def scrub(text: str) -> str:
    """A message without the access tokens, passwords and credentials that it may repeat from a command line."""

    def shown(match: re.Match[str]) -> str:
        return match[1] + HIDDEN if is_secret(match[1].rstrip("='\"").rpartition(".")[2], match[2]) else match[0]

    text = _SECRET_VALUE.sub(HIDDEN, _URL_CREDENTIALS.sub(r"\1", text))
    return _SETTING.sub(shown, text)


def is_secret(key: str, value: Any = None) -> bool:
    """True where a key's name (or a text's well-known form) says that the value is a password, key or token."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", key)]
    if isinstance(value, str) and _SECRET_VALUE.search(value):
        return True
    if not words or isinstance(value, bool | Mapping):
        return False
    if _ALWAYS_SECRET & set(words) or words[-1] in ("apikey", "authtoken"):
        return True
    if words[-1] == "key":
        return bool(_KEY_OWNERS & set(words[:-1]))
    return words[-1] == "token" and not _TEXT_TOKENS & set(words[:-1]) and not isinstance(value, int | float)


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
        return _URL_CREDENTIALS.sub(r"\1", relative(value))
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _clean_mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = {str(key): _clean(item, str(key)) for key, item in value.items()}
    return {key: item for key, item in cleaned.items() if item is not _DROPPED}


def _escape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    # An odd backslash before `${` is what OmegaConf reads as a literal; those already there are doubled.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
