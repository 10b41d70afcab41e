"""docs/records/reliability.md says nothing that no test holds."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "records" / "reliability.md").read_text(encoding="utf-8")
INTRODUCTION = 3
"""Paragraphs that say what the page is, not what a run does: of the page and of its series."""


def defined() -> dict[str, bool]:
    """Every test function by name, and whether it is a long one."""
    found = {}
    for file in (REPOSITORY / "tests").rglob("test_*.py"):
        for marks, name in re.findall(r"^((?:@.*\n|[ )].*\n)*)def (test_\w+)", file.read_text(encoding="utf-8"), re.M):
            found[name] = re.search(r"^@pytest\.mark\.long", marks, re.M) is not None  # not one of its parameters alone
    return found


def statements() -> list[str]:
    """Bullets, and rows of tables that name tests in their last column."""
    bullets = re.findall(r"^- .*$", PAGE, re.M)
    rows = [line for line in re.findall(r"^\| .*$", PAGE, re.M) if "| tests" not in line]
    return [*bullets, *rows]


def test_every_statement_names_tests_that_exist() -> None:
    known = defined()
    assert len(statements()) > 40
    for statement in statements():
        named = re.findall(r"`(test_\w+)`", statement)
        assert named, statement
        assert [name for name in named if name not in known] == [], statement
        # what only long tests hold says so by naming a series
        assert any(not known[name] for name in named) or "series" in statement, statement


def test_nothing_is_said_beside_the_statements() -> None:
    plain = [line for line in PAGE.split("\n\n") if not line.startswith(("#", "- ", "|"))]
    assert len(plain) <= INTRODUCTION
