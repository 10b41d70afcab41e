"""Docstrings as reStructuredText: the project writes plain English with `code`, and lists without blank lines."""

from __future__ import annotations

import re
from typing import Any

BULLET = re.compile(r"^(\s*)[-*] ")


def as_restructured(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Change `lines`, one docstring, in place; what stands behind `>>>` and its output stays as it is."""
    made: list[str] = []
    prompt = False
    if what in ("attribute", "data", "property") and ": " in "".join(lines[:1]):  # napoleon reads a type there
        lines[:1] = [part + mark for part, mark in zip(lines[0].split(": ", 1), (":", ""), strict=True)]
    for line in lines:
        prompt = bool(line.strip()) and (prompt or line.lstrip().startswith(">>>"))
        if not prompt:
            if BULLET.match(line) and made and made[-1].strip() and not BULLET.match(made[-1]):
                made.append("")
            line = escaped(line)
        made.append(line)
    lines[:] = made


def escaped(line: str) -> str:
    """The line with what is markup only by chance made plain: stars, bars and trailing underscores outside `code`."""
    parts = re.split(r"(`[^`]*`)", line)
    for at, part in enumerate(parts):
        if part.startswith("`") and part.endswith("`") and len(part) > 1:
            parts[at] = f"``{part[1:-1].strip()}``"
        else:
            part = re.sub(r"(?<!\\)([*|])(?! )", r"\\\1", part)
            parts[at] = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", part)
    return "".join(parts)
