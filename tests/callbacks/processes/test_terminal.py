"""Terminals: bars only where a cursor moves, tables as wide as what shows them."""

from __future__ import annotations

import sys

import pytest

from twinlens.callbacks.processes.terminal import NARROWEST, WIDTH, on_terminal, table_width


@pytest.mark.parametrize(
    ("is_terminal", "term", "columns", "bars", "width"),
    [
        (True, "xterm", "160", True, 160),
        (True, "xterm", "40", True, NARROWEST),
        (True, "dumb", "80", False, 80),
        (False, "xterm", "160", False, WIDTH),
    ],
)
def test_what_a_terminal_shows(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, term: str, columns: str, bars: bool, width: int
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", columns)
    assert (on_terminal(), table_width()) == (bars, width)
