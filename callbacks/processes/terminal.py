"""Terminal or notebook of a run: whether moving bars are seen on it, and how wide a table may be."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

WIDTH = 100
"""Columns of printed tables where no terminal says how wide it is: files, pipes, logs."""
NARROWEST = 72
"""Columns that are taken even of a narrower terminal: with fewer, tables hold little but marks."""
_IN_NOTEBOOK: ContextVar[bool] = ContextVar("bars are a notebook's", default=False)


@contextmanager
def notebook_bars() -> Iterator[None]:
    """Show moving bars, which a notebook draws as widgets, although standard output is no terminal."""
    before = _IN_NOTEBOOK.set(True)
    try:
        yield
    finally:
        _IN_NOTEBOOK.reset(before)


def on_terminal() -> bool:
    """Whether a moving bar can be seen: in a notebook, or on a terminal that moves its cursor."""
    return _IN_NOTEBOOK.get() or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


def table_width() -> int:
    """Columns that a printed table fits: those of the terminal, `WIDTH` where there is none."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(NARROWEST, shutil.get_terminal_size((WIDTH, 24)).columns)
