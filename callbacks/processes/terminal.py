"""Terminal of a run: whether moving bars are seen on it, and how wide a table may be."""

from __future__ import annotations

import os
import shutil
import sys

WIDTH = 100
"""Columns of printed tables where no terminal says how wide it is: files, pipes, logs."""
NARROWEST = 72
"""Columns that are taken even of a narrower terminal: with fewer, tables hold little but marks."""


def on_terminal() -> bool:
    """Whether a moving bar can be seen: standard output is a terminal, and one that moves its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def table_width() -> int:
    """Columns that a printed table fits: those of the terminal, `WIDTH` where there is none."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(NARROWEST, shutil.get_terminal_size((WIDTH, 24)).columns)
