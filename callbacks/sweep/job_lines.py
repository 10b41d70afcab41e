"""Jobs of a sweep on the terminal: a line as each begins and ends, and all of them when the sweep has ended."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.callbacks.processes.terminal import table_width


def job_lines(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> list[str]:
    """The jobs as aligned text; what they have in common stands once, above them.

    Args:
        rows: of sweep.csv.
        width: see `set_in`.
    """
    overrides = [str(row["overrides"]).split() for row in rows]
    common = [one for one in overrides[0] if all(one in own for own in overrides)] if len(rows) > 1 else []
    shown = [["job", "status", "headline"]]
    shown += [[str(row["job"]), str(row["status"]), str(row["headline"])] for row in rows]
    widths = [max(len(line[column]) for line in shown) for column in range(3)]
    own = [" ".join(one for one in each if one not in common) for each in overrides]
    lines = set_in(" ".join(common), "  all with ", width) if common else []
    for cells, said in zip(shown, ["overrides", *own], strict=True):
        start = "  " + "".join(cell.ljust(size + 2) for cell, size in zip(cells, widths, strict=True) if size)
        lines += set_in(said, start, width)
    return [*lines, *(f"job {row['job']}: {row['message']}" for row in rows if row["message"])]


def job_began(number: int, overrides: Sequence[str]) -> str:
    """For example `job 3: method=ig seed=1`, below an empty line."""
    return "\n".join(["", *set_in(" ".join(overrides), f"job {number}: ")])


def job_ended(row: Mapping[str, Any]) -> str:
    """For example `job 3: done, accuracy/accuracy=0.7`."""
    return f"job {row['job']}: " + ", ".join(filter(None, [row["status"], row["headline"], row["message"]]))


def set_in(text: str, start: str, width: int | None = None) -> list[str]:
    """Words behind a beginning, in lines that are set in as far.

    Args:
        width: no line is longer, but for words that are: these are never cut. None: that of the terminal.
    """
    width = width or table_width()
    options: Any = {"break_long_words": False, "break_on_hyphens": False}
    after = " " * min(len(start), width // 2)
    found = textwrap.wrap(text, width, initial_indent=start, subsequent_indent=after, **options)
    return [line.rstrip() for line in found or [start]]
