"""Nearest valid names for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, or None where nothing is near."""
    by_lower = {candidate.lower(): candidate for candidate in valid}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.65)
    return by_lower[found[0]] if found else None


def advice(name: str, valid: Iterable[str], what: str = "Available") -> str:
    """End of a sentence: `; did you mean x? Available: x, y.`"""
    names = sorted(set(valid))
    near = nearest(name, names)
    meant = f"; did you mean {near!r}?" if near else "."
    return f"{meant} {what}: {', '.join(names)}." if names else f"{meant} {what}: none."
