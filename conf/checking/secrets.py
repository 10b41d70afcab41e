"""Secrets left out of whatever is written or said: by a key's name, and by the value itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "…"
"""Stands where a secret stood."""

SHORTEST_VALUE = 8
"""Characters; a shorter value of an environment variable is more likely a word than a key."""

_ALWAYS_SECRET = frozenset(
    {"password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials"}
    | {"authorization", "cookie"}
)
_COMPOUND = frozenset({"apikey", "apikeys", "authtoken", "accesskey", "secretkey", "privatekey", "accesstoken"})
_KEY_OWNERS = frozenset(
    {"api", "access", "private", "secret", "auth", "encryption", "ssh", "account", "signing", "license"}
)
_TEXT_TOKENS = frozenset({"pad", "eos", "bos", "unk", "sep", "cls", "mask", "special", "last", "answer", "per", "end"})
_SECRET_IN_ENVIRONMENT = frozenset({"key", "token", "pat", "auth", "pass", "cookie", "dsn"})
_NAMES_OF_COMMITS = frozenset({"revision", "commit", "sha", "sha1"})

_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|wandb_v1_\w{20,}|AIza[\w-]{35}|ya29\.[\w-]{20,}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[\w-]{32,}|SG\.[\w-]{16,}\.[\w-]{16,}|gsk_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{20,}"
    r"|nvapi-[\w-]{20,}|xai-[A-Za-z0-9]{20,}|pplx-[A-Za-z0-9]{20,}|dop_v1_[0-9a-f]{32,}|AGE-SECRET-KEY-1[0-9A-Z]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|\b\d{8,10}:[\w-]{35}\b"
    r"|(?<=hooks\.slack\.com/services/)[\w/]+",
    re.DOTALL,
)
_FORTY_HEX = re.compile(r"(?<![\w+/=-])[0-9a-fA-F]{40}(?![\w+/=-])")
"""A key of Weights & Biases; also the form of a commit, which is left alone where its key says so."""
_COMMIT = re.compile(r"((?:revision|commit|sha1?)[\"']?\s*[=:]\s*[\"']?)[0-9a-fA-F]{40}\b", re.IGNORECASE)
_URL_CREDENTIALS = re.compile(r"(\w[\w+.-]*://)[^/@\s]+@")
_URL_QUERY = re.compile(r"([?&](?:sig|signature|x-(?:amz|goog)-[\w-]+|key|code|auth|token)=)[^&#\s'\"]+", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer|basic|token)(\s+)(?=[\w.~+/=-]*[\d._~+/=-])([\w.~+/=-]{12,})", re.IGNORECASE)
_OPTION = re.compile(r"(?<!\S)(--?)([A-Za-z][\w-]*)(\s+)([^\s-]\S*)")
_SETTING = re.compile(
    r"""(?P<before>(?:^|[\s{\[,;&?(:"'+~]|\\)\\*["']?)"""
    r"""(?P<key>[\w./-]*[\w])(?P<sep>\\*["']?[ \t]*(?:=|:|%3D|%3A)[ \t]*)"""
    r"""(?P<value>(?P<escaped>\\+["']).*?(?P=escaped)|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;&"'\]}]+)""",
    re.MULTILINE,
)
_QUOTED = re.compile(r"""(\\*["'])(.*?)(\\*["'])""", re.DOTALL)


def is_secret(key: str, value: Any = None) -> bool:
    """True where a key's name (or a text's well-known form) says that the value is a password, key or token."""
    words = words_of(key)
    if isinstance(value, str) and holds_secret(value, key):
        return True
    if not words or isinstance(value, bool):
        return False
    if _ALWAYS_SECRET & set(words) or words[-1] in _COMPOUND:
        return True
    if words[-1] in ("key", "keys"):
        return bool(_KEY_OWNERS & set(words[:-1]))
    is_text = not isinstance(value, int | float | Mapping)
    return words[-1] == "token" and not _TEXT_TOKENS & set(words[:-1]) and is_text


def holds_secret(text: str, key: str = "") -> bool:
    """True where a text holds an access token or key by its form, or the value of a secret environment variable."""
    if _SHAPES.search(text) or any(value in text for value in secret_values()):
        return True
    return bool(_FORTY_HEX.search(_COMMIT.sub("", text))) and not _NAMES_OF_COMMITS & set(words_of(key))


def secret_values() -> list[str]:
    """Values of the environment variables whose names say that they are secret, the longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST_VALUE and not value.startswith(("/", "~")) and _is_secret_variable(name)
    }
    return sorted(found, key=len, reverse=True)


def hide(text: str) -> str:
    """A text without what is secret by its value: forms of tokens and keys, credentials in addresses, values of
    secret environment variables. For files and pages, in which `name: value` may be anybody's words."""
    for value in secret_values():
        text = text.replace(value, HIDDEN)
    text = _SHAPES.sub(HIDDEN, _URL_CREDENTIALS.sub(r"\1", text))
    text = _FORTY_HEX.sub(lambda match: match[0] if _is_commit(text, match) else HIDDEN, text)
    return _URL_QUERY.sub(rf"\1{HIDDEN}", text)


def scrub(text: str) -> str:
    """A message without the access tokens, passwords and credentials that it may repeat from a command line: by
    value as in `hide`, and what follows a secret key (`api_key=…`, `"password": "…"`, `--token …`), at any depth."""
    text = _BEARER.sub(rf"\1\2{HIDDEN}", hide(text))
    text = _OPTION.sub(lambda m: f"{m[1]}{m[2]}{m[3]}{HIDDEN}" if is_secret(m[2]) else m[0], text)
    return _SETTING.sub(_shown, text)


def words_of(key: str) -> list[str]:
    """`wandbApiKey`, `WANDB_API_KEY` → wandb, api, key."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", key)]


def _is_secret_variable(name: str) -> bool:
    words = words_of(name)
    return is_secret(name) or bool(words and words[-1] in _SECRET_IN_ENVIRONMENT)


def _is_commit(text: str, match: re.Match[str]) -> bool:
    return any(found.end() == match.end() for found in _COMMIT.finditer(text, max(0, match.start() - 40), match.end()))


def _shown(match: re.Match[str]) -> str:
    before, key, separator, value = match["before"], match["key"], match["sep"], match["value"]
    quotes = _QUOTED.fullmatch(value)
    opening, inner, closing = quotes.groups() if quotes else ("", value, "")
    name = key.rpartition(".")[2]
    # A colon after a word of prose ("the next token: set …") is no setting.
    prose = separator.endswith(": ")
    placeholder = re.match(r"[{<]\w*$", inner)  # of a template: `Secret: {claim}`
    if is_secret(name) and not placeholder and not (prose and not _begins_an_entry(match)):
        return f"{before}{key}{separator}{opening}{HIDDEN}{closing}"
    return f"{before}{key}{separator}{opening}{_SETTING.sub(_shown, inner)}{closing}"


def _begins_an_entry(match: re.Match[str]) -> bool:
    """Whether a key stands where YAML or JSON have one: first in its line, after a bracket, a comma or a dash."""
    ahead = match.string[: match.start("key")].rpartition("\n")[2].rstrip(" \t'\"\\")
    return not ahead or ahead[-1] in "{[,-?"
