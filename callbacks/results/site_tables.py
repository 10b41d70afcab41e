"""Table of the four cells of MLP × attention: tables/site_ablation.csv."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.table import Table, cell_text, grid

SHOWN = {"preserved": "predictions preserved, %", "target_prob": "probability of the target"}
EVALUATION = "site_ablation"


def site_tables(rows: Sequence[Row]) -> list[Table]:
    """The table, where the rows of results.csv have it."""
    found = grid(
        EVALUATION,
        "Predictions preserved and the target's probability with all neurons of MLP or attention zero at the answer "
        "token",
        ("MLP", "attention", "model", "data"),
        [row for row in rows if row["evaluation"] == EVALUATION and row["metric"] in SHOWN],
        lambda row: (
            cell_text(row, "group").removeprefix("mlp "),
            cell_text(row, "reference_group").removeprefix("attention "),
            cell_text(row, "model"),
            cell_text(row, "data"),
        ),
        lambda row: SHOWN[str(row["metric"])],
    )
    return [] if found is None else [found]
