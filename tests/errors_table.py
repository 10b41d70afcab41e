"""docs/errors.md, made of what `tests/test_errors_table.py` sees: `python -m tests.errors_table`."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pytest

from tests.bad_input_files import BadInput
from tests.bad_inputs import BAD_INPUTS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
WRITE_TO = "TWINLENS_ERRORS_TABLE"
"""Environment variable: the file to which the test writes messages instead of comparing them."""

INTRODUCTION = """# What is said when something is wrong

Everything that can be mended is refused with one sentence on standard error and exit code 2: what is wrong, where,
what was expected, what to do. What can be known before a run starts is refused before anything is written. In a sweep
the other jobs go on. Exit code 1 is a defect of twinlens, 130 an interruption.

This page is written by the test that tries all of this (`python -m tests.errors_table`), with `.` for the working
directory and `TWINLENS` for the project's own folder; settings that only keep the examples small are left out.
"""
HEADER = "| what is wrong | command | message |\n|---|---|---|"


def row_of(bad: BadInput, message: str) -> str:
    """One line of the table."""
    small = ("debug=fdr", "trainer.accelerator=cpu", "data.n_", "data.limit.test=12", "data.limit.train=48")
    shown = " ".join(argument for argument in bad.arguments if not argument.startswith(small))
    return f"| {bad.what} | `{shown.replace('|', '&#124;')}` | {_escaped(message)} |"


def rows_of(page: Path) -> list[str]:
    """The table's lines, without headers."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    return [line for line in lines if line.startswith("| ") and not line.startswith("| what is wrong |")]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def page_of(messages: Mapping[str, str], entries: Sequence[BadInput] = BAD_INPUTS) -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for section, members in groupby(entries, key=lambda bad: bad.section):
        rows = [row_of(bad, messages[bad.what]) for bad in members]
        parts.append("\n".join([f"## {section}", "", HEADER, *rows, ""]))
    return "\n".join(parts)


def _escaped(message: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", message)


def main() -> int:
    """Run the test, collect what it saw and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "messages.jsonl"
        os.environ[WRITE_TO] = str(collected)
        code = pytest.main(["-q", f"{Path(__file__).parent / 'test_errors_table.py'}", "-k", "test_bad_input"])
        if code == 0:
            seen = [json.loads(line) for line in collected.read_text(encoding="utf-8").splitlines()]
            PAGE.write_text(page_of({entry["what"]: entry["message"] for entry in seen}), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
