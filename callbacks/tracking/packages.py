"""Packages of trackers that come as extras of this project."""

from __future__ import annotations

import importlib.util

from twinlens.attribution.errors import UserError


def require_package(module: str, option: str, extra: str) -> None:
    """Refuse a tracker whose library is not there, before anything is read or trained.

    Args:
        module: that the library is imported by.
        option: of the group `logger`.
        extra: of this project, which installs it.

    Raises:
        UserError: with the command that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"logger={option}: the package {module} is not installed; expected the extra {extra}: "
            f"pip install -c constraints.txt -e '.[{extra}]', or leave the logger out."
        )
