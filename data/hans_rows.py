"""HANS (McCoy, Pavlick, Linzen 2019): pairs that word overlap answers wrongly, as a test split for a model of MNLI."""

from __future__ import annotations

import re
from collections.abc import Sequence

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes
from twinlens.data.file_readers import UNQUOTED_TSV, Need, is_folder, read_files, user_path
from twinlens.data.labels import label_numbers
from twinlens.data.source_rows import SourceRows
from twinlens.data.split_files import only_files, say_unused

OPTION = "data.test_path"
NAME = re.compile(r"^(heuristics_evaluation_set|hans)")
TABLES = {
    ".txt": UNQUOTED_TSV,
    ".tsv": UNQUOTED_TSV,
}  # the published heuristics_evaluation_set.txt has tabs, no quoting
HANS_COLUMNS = ("heuristic", "subcase", "template")
"""What HANS says about each pair beside its text."""


def hans_rows(
    path: str, heuristic: str | None, names: Sequence[str], notes: Notes, needed: int | None = None
) -> SourceRows:
    """The rows of HANS, or those made for one heuristic.

    Args:
        path: heuristics_evaluation_set.txt, another table with its columns, or the folder with one of these.
        heuristic: lexical_overlap, subsequence or constituent; None: all rows.
        names: the two folded labels, entailment first.
        notes: is told what was done.
        needed: how many rows for that heuristic are needed, the first ones; None: all.

    Raises:
        UserError: missing file or columns, an unknown label, no row for the heuristic.
    """
    place = user_path(path, OPTION)
    files = [place]
    if is_folder(place, OPTION):
        files = only_files(place, NAME, OPTION, TABLES)
        if not files:
            raise UserError(
                f"The folder {place} holds no file of HANS, expected heuristics_evaluation_set.txt: check {OPTION}."
            )
        say_unused(place, files, notes)
    need = None if needed is None else Need(needed, lambda row: heuristic in (None, row.get("heuristic")))
    table = read_files(files, OPTION, TABLES, notes, need)
    rows = table.rows
    wanted = ("gold_label", "sentence1", "sentence2", *HANS_COLUMNS)
    for number, row in enumerate(rows):
        missing = [column for column in wanted if not isinstance(row.get(column), str)]
        if missing:
            raise UserError(
                f"{table.where(number)} has no text for {', '.join(missing)}, expected the columns {', '.join(wanted)} "
                f"of HANS: check {OPTION}."
            )
    chosen = [number for number, row in enumerate(rows) if heuristic in (None, row["heuristic"])]
    if not chosen:
        what = "" if heuristic is None else f" with the heuristic {heuristic}"
        raise UserError(
            f"{table.name} has no row{what}, expected some: set data.heuristic=null for all rows, or check {OPTION}."
        )
    columns = {"premise": "sentence1", "hypothesis": "sentence2", **{name: name for name in HANS_COLUMNS}}
    return SourceRows(
        source_index=chosen,
        columns={name: [rows[number][column] for number in chosen] for name, column in columns.items()},
        labels=label_numbers(table, chosen, [rows[number]["gold_label"] for number in chosen], names),
    )
