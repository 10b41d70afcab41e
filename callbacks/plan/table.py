"""The plan as an aligned table of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.callbacks.store.stage_line import time_in_words

HEADER = ("pass", "rows", "in store", "time", "disk", "working memory", "peak with model", "where", "")
LEFT_ALIGNED = (0, 2, 7, 8)


@dataclass(frozen=True)
class Line:
    """What one pass takes.

    Attributes:
        name: of the pass.
        rows: examples.
        stored: whether the store has it already.
        seconds: time estimate; None where nothing is known of the method.
        disk: bytes at the highest.
        working: bytes beside the model, what `memory_budget` bounds.
        peak: bytes with the model's weights and what else the pass holds.
        where: kind of device that the memory belongs to.
        remark: a choice that was made.
    """

    name: str
    rows: int
    stored: str
    seconds: float | None
    disk: int
    working: int
    peak: int
    where: str
    remark: str = ""


def format_plan(lines: Sequence[Line]) -> str:
    """The table, and a last line with what is still to be done."""
    cells: list[tuple[str, ...]] = [HEADER]
    for line in lines:
        size = [bytes_in_words(value) for value in (line.disk, line.working, line.peak)]
        cells.append(
            (line.name, str(line.rows), line.stored, time_in_words(line.seconds), *size, line.where, line.remark)
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    table = [
        "  ".join(
            cell.ljust(width) if column in LEFT_ALIGNED else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    todo = [line for line in lines if line.stored != "yes"]
    seconds = sum(line.seconds or 0.0 for line in todo)
    highest = max((line.peak for line in todo), default=0)
    table.append(
        f"to do: {len(todo)} of {len(lines)} passes, about {time_in_words(seconds)}, "
        f"{bytes_in_words(sum(line.disk for line in todo))} of disk, at most {bytes_in_words(highest)} of memory"
    )
    return "\n".join(table)
