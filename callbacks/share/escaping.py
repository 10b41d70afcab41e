"""Words of a run as they may stand in a card: one line, as text, without secrets and without folders of a machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from twinlens.conf.checking.secrets import scrub

LONGEST = 300
"""Characters of one value; a longer one is cut."""

_MARKS = re.compile(r"([\\`*_\[\]<>|~$&#@]|(?<=:)//|(?<=[wW]{3})\.)")
_FOLDERS = re.compile(r"(?<![\w.~:])(?:(?:~|\.{1,2})?[/\\]|\b[A-Za-z]:[/\\])(?:[^\s/\\,;:'\"\])}]+[/\\])*(?=[^\s/\\])")
_URL = re.compile(r"\w+://\S+")


def shown(text: object) -> str:
    """One line of a value, without what does not print, without secrets and folders; long ones are cut."""
    line = "".join(sign if sign.isprintable() else " " for sign in str(text))
    line = without_folders(scrub(line)).strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def prose(text: object) -> str:
    """`shown` as Markdown that says it literally: no markup, no link, no cell's end."""
    return _MARKS.sub(lambda mark: "".join("\\" + sign for sign in mark[0]), shown(text))


def without_folders(text: str) -> str:
    """A text in which absolute paths, and those that lead out of a folder, are names of files alone; addresses of the
    network stay as they are.

    Example:
        >>> without_folders("read /home/me/claims.csv and ../more.csv, see https://example.org/a")
        'read claims.csv and more.csv, see https://example.org/a'
    """
    kept = [found[0] for found in _URL.finditer(text)]
    parts = _URL.split(text)
    cleaned = [_FOLDERS.sub("", part) for part in parts]
    return "".join(part + (kept[n] if n < len(kept) else "") for n, part in enumerate(cleaned))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table; headers are ours, cells are anybody's."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return [*lines, *(f"| {' | '.join(prose(cell) for cell in row)} |" for row in rows)]
