"""Names of places that a run is pushed to, `push=hub:NAME`, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from twinlens.attribution.errors import UserError

HUB = "hub:"
PUSH, PUSH_OF = "push", "push_of"
KEYS = (PUSH, PUSH_OF)
"""Keys that are obeyed on the command line only."""
LONGEST = 96
"""Characters of a repository's name on the Hugging Face hub."""

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?:{_PART}/)?{_PART}")


def repository_of(push: str) -> str:
    """`owner/name`, or `name`, of `hub:owner/name`.

    Raises:
        UserError: it does not begin with `hub:`, or the hub takes no such name.
    """
    name = push.removeprefix(HUB)
    if not push.startswith(HUB):
        raise UserError(
            f"push={push!r:.100}: expected hub:NAME or hub:OWNER/NAME, a repository of the Hugging Face hub: write "
            "push=hub:NAME, for example push=hub:me/claims."
        )
    if not _NAME.fullmatch(name) or "--" in name or ".." in name or len(name) > LONGEST or name.endswith(".git"):
        raise UserError(
            f"push={push!r:.140}: {name!r:.100} is no name of a repository; expected letters, digits, '-', '_' "
            f"and '.', neither '-' nor '.' doubled or at an end, at most {LONGEST} characters: write push=hub:NAME or "
            "push=hub:OWNER/NAME."
        )
    return name


def check_push(config: Mapping[str, Any], typed: Collection[str], multirun: bool) -> None:
    """Refuse a push that a file asks for, one of a sweep, and one of something that is no run.

    Args:
        config: plain values of the configuration.
        typed: keys set on the command line.
        multirun: whether the command line is a sweep.

    Raises:
        UserError: naming the key and what to say instead.
    """
    for key in KEYS:
        if config.get(key) is not None and key not in typed:
            raise UserError(
                f"{key}={config[key]!s:.100}: a configuration file asks for this; expected null in files: to do so, "
                f"say {key}={config[key]!s:.100} on the command line."
            )
    push, push_of = (config.get(key) for key in KEYS)
    if push is not None:
        repository_of(push)
    if push is not None and multirun:
        raise UserError(
            f"push={push}: the jobs of a sweep would write over each other in one repository; expected one run: leave "
            f"push out, and push the job that you choose with push={push} push_of=RUN."
        )
    if push_of is not None and push is None:
        raise UserError(
            f"push_of={push_of!s:.200} names a finished run, but nothing says where it goes; expected both: add "
            "push=hub:NAME."
        )
