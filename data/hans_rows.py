"""HANS (McCoy, Pavlick, Linzen 2019): pairs that word overlap answers wrongly, as a test split for a model of MNLI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.data.file_readers import only_file, read_rows
from twinlens.data.labels import label_numbers
from twinlens.data.source_rows import SourceRows

OPTION = "data.test_path"
NAME = re.compile(r"^(heuristics_evaluation_set|hans)")
TABLES = {".txt": ".tsv"}  # the published heuristics_evaluation_set.txt is tab-separated
HANS_COLUMNS = ("heuristic", "subcase", "template")
"""What HANS says about each pair beside its text."""


def hans_rows(path: str, heuristic: str | None, names: Sequence[str]) -> SourceRows:
    """The rows of HANS, or those made for one heuristic.

    Args:
        path: heuristics_evaluation_set.txt, another table with its columns, or the folder with one of these.
        heuristic: lexical_overlap, subsequence or constituent; None: all rows.
        names: the two folded labels, entailment first.

    Raises:
        UserError: missing file or columns, an unknown label, no row for the heuristic.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        found = only_file(file, NAME, OPTION, TABLES)
        if found is None:
            raise UserError(
                f"The folder {file} holds no file of HANS, expected heuristics_evaluation_set.txt: check {OPTION}."
            )
        file = found
    rows = read_rows(file, OPTION, TABLES)
    wanted = ("gold_label", "sentence1", "sentence2", *HANS_COLUMNS)
    for number, row in enumerate(rows):
        missing = [column for column in wanted if not isinstance(row.get(column), str)]
        if missing:
            raise UserError(
                f"{file} row {number} has no text for {', '.join(missing)}, expected the columns {', '.join(wanted)} "
                f"of HANS: check {OPTION}."
            )
    chosen = [number for number, row in enumerate(rows) if heuristic in (None, row["heuristic"])]
    if not chosen:
        raise UserError(
            f"{file} has no row{'' if heuristic is None else f' with the heuristic {heuristic}'}, expected some: set "
            f"data.heuristic=null for all rows, or check {OPTION}."
        )
    columns = {"premise": "sentence1", "hypothesis": "sentence2", **{name: name for name in HANS_COLUMNS}}
    return SourceRows(
        source_index=chosen,
        columns={name: [rows[number][column] for number in chosen] for name, column in columns.items()},
        labels=label_numbers(str(file), chosen, [rows[number]["gold_label"] for number in chosen], names),
    )
