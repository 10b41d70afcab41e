"""docs/warnings.md, made of the list of warnings: `python -m tests.warnings_table`."""

from __future__ import annotations

from pathlib import Path

from twinlens.callbacks.results.run_warning import RunWarning
from twinlens.callbacks.results.warnings_list import WARNINGS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "warnings.md"
STAGES = {"predict": "the predictions", "attribute": "the attributions", "evaluate": "the evaluations"}

INTRODUCTION = """# What a run says about itself

A run ends with numbers even where a careful colleague would not trust them. What such a colleague would say stands in
one line each on stdout (`warning: …`, with what to do behind the semicolon), as soon as it is known; in the run's
`warnings.yaml`, as `name` and `sentence` (absent where there is nothing to say); and at the top of `report.html`. It is
said again when stages are read from the store. A warning stops nothing and changes no number; what cannot be right at
all is refused instead ([errors](errors.md)).

Words in braces are the run's own. Thresholds are such that a sound run of ordinary size says nothing; each has its
reason beside it. Random controls are compared with, and not warned of. A control that is as strong as a method is no
defect of the run: it is the result, and `not_above_control` says it.

This page is written from the list itself (`python -m tests.warnings_table`).
"""
HEADER = "| name | sentence | when it is said | why it matters | what to do |\n|---|---|---|---|---|"


def row_of(warning: RunWarning) -> str:
    """One line of the table."""
    cells = (f"`{warning.name}`", warning.sentence, warning.when, warning.why, warning.remedy)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def page_of() -> str:
    """The whole page: one table, in the order in which a run says its lines."""
    said = "; ".join(
        f"after {words}: {', '.join(f'`{warning.name}`' for warning in WARNINGS if warning.stage == stage)}"
        for stage, words in STAGES.items()
    )
    return "\n".join([INTRODUCTION, f"{said[0].upper()}{said[1:]}.\n", HEADER, *map(row_of, WARNINGS), ""])


if __name__ == "__main__":
    PAGE.write_text(page_of(), encoding="utf-8")
