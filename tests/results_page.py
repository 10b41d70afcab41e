"""docs/results.md and docs/results.schema.json, made of the columns in the code: `python -m tests.results_page`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.results.columns import COLUMNS, Column
from twinlens.callbacks.store.formats import RUN_FORMAT

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, SCHEMA = DOCS / "results.md", DOCS / "results.schema.json"
TYPES = {"text": "string", "whole": "integer", "number": "number", "place": "any"}
"""Kind of a column → its type in a table schema."""
WORDS = {"text": "text", "whole": "whole number", "number": "number", "place": "number or word"}
BEGIN, END = "<!-- columns, written by tests/results_page.py -->\n", "<!-- end of columns -->\n"


def meaning(name: str, column: Column) -> str:
    """What a column's cells say; of a field of `Result`, what its docstring says."""
    if column.means:
        return column.means
    found = re.search(rf"^ +{name}: (.+?)(?=^ +\w+(?:, \w+)*: |^\s*$)", str(Result.__doc__), re.M | re.S)
    return " ".join(found[1].split()) if found else ""


def schema() -> Mapping[str, Any]:
    """The columns as a table schema (Frictionless Data), which validators of CSV files read."""
    fields = [
        {
            "name": name,
            "type": TYPES[column.kind],
            "description": meaning(name, column),
            **({"constraints": {"required": True}} if column.needed else {}),
        }
        for name, column in COLUMNS.items()
    ]
    about = [name for name, column in COLUMNS.items() if column.about]
    return {
        "title": "Rows of results, as twinlens writes and reads them",
        "version": str(RUN_FORMAT),
        "fields": fields,
        "missingValues": [""],
        "uniqueKeys": [[*about, "seed"]],
    }


def columns_table() -> str:
    """The table of the page."""
    lines = [
        "| column | cells | a row needs it | same in rows that measure one thing | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, column in COLUMNS.items():
        marks = ("yes" if column.needed else "", "yes" if column.about else "")
        lines.append(f"| `{name}` | {WORDS[column.kind]} | {' | '.join(marks)} | {meaning(name, column)} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with its table anew."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + columns_table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
