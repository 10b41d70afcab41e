"""Any table with text columns and a label: CSV, TSV, JSON, JSONL or Parquet; also unlabelled inputs to explain.

`path` is one of

- a file: labelled rows are split into train, validation and test by a seeded permutation; a table without any label
  (or `label: null`) has nothing to train on and becomes the test split as it stands, without train and validation;
- a folder with train.*, validation.* and test.* (or val, dev, training … and the hub's numbered shards), of which any
  may be absent, but not all;
- a mapping {train: file, validation: file, test: file}, any of them absent.

In a folder or mapping the rows of the test split may be unlabelled (label -1). In train and validation every row needs
a label; where labels are class numbers, rows with −1, null or NaN are left out and reported. Rows keep their number in
the file as `source_index`, counted on over shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import listed, quoted
from twinlens.data.file_readers import MOST_DIVIDED, FileRows, Need, Row, is_folder, read_files, user_path
from twinlens.data.labels import (
    NO_LABEL,
    LabelValues,
    class_names,
    is_empty,
    label_name,
    label_numbers,
    may_say_no_label,
    merged_labels,
    parted_by_label,
    refuse_doubtful_classes,
    say_unlabelled,
    says_no_label,
    whole_number,
)
from twinlens.data.row_choice import SPLITS
from twinlens.data.sampling import permutation
from twinlens.data.split_files import files_by_split
from twinlens.data.text_data_module import SourceRows, TextDataModule

SINGLE = "all"
"""The one file that is cut into splits."""


def reference_template(columns: Sequence[str]) -> str:
    """`Premise : {premise}/ Hypothesis : {hypothesis}/ Answer :`, the published form over any columns."""
    shown = "/ ".join(f"{column[:1].upper()}{column[1:]} : {{{column}}}" for column in columns)
    return f"{shown}/ Answer :"


class TableDataModule(TextDataModule):
    """A table of one's own.

    Args:
        path: file, folder or mapping from split to file, see above.
        text: the text columns in reading order.
        label: the label column; None: unlabelled inputs.
        label_names: class order; None: the sorted values of the training rows (of all rows without training rows).
        validation_fraction: share of the labelled rows of a single file set aside for validation.
        test_fraction: share of the labelled rows of a single file set aside for test.
        template: `reference` (`Column : text` joined as published) or a format string over the text columns.
        cut: the column that loses tokens when a text is too long; None: one called evidence, or else the last one.
        options: see `TextDataModule`.
    """

    def __init__(
        self,
        name: str = "table",
        path: Any = None,
        text: Sequence[str] = ("text",),
        label: str | None = "label",
        label_names: Sequence[Any] | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(name, path, **options)
        self.text_columns = list(text)
        self.label = label
        self.given_label_names = None if label_names is None else [label_name(value) for value in label_names]
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self._check_table_options()

    def templates(self) -> dict[str, str]:
        """`reference`, made of the text columns."""
        return {"reference": reference_template(self.text_columns)}

    def load_splits(self) -> dict[str, SourceRows]:
        """Read the file or files, find the label names, split a single labelled file."""
        files = self._files()
        values = LabelValues()
        tables = {split: self._read(split, files, values) for split in files}
        for split, table in tables.items():
            # beside labelled training rows a test file may come without the label column
            self._check_columns(table, needs_label=not (split == "test" and "train" in tables))
        self.label_names = self._find_label_names(values)
        single = tables.get(SINGLE)
        learned = tables.get("train", single)  # a test split alone may well be of one class
        if learned is not None and values.n_rows:
            refuse_doubtful_classes(self.label_names, values.n_rows, f"the column {self.label} of {learned.name}")
        if single is None:
            return {split: self._whole(split, table) for split, table in tables.items()}
        labels = self._labels(single)
        if all(is_empty(value) or says_no_label(value, self.label_names) for value in labels):
            return {"test": self._whole("test", single)}
        taken, left_out = parted_by_label(labels, self.label_names)
        splits = {split: self._rows(single, rows) for split, rows in self._divide(single, taken).items()}
        splits["train"].left_out = left_out
        return splits

    def _read(self, split: str, files: Mapping[str, list[Path]], values: LabelValues) -> FileRows:
        """The rows of a split as far as they are needed; `values` learns all labels that make classes."""
        names_classes = self.given_label_names is None and split in (("train",) if "train" in files else files)
        table = read_files(files[split], notes=self.notes, need=self._need(split, values if names_classes else None))
        if names_classes:
            for number, row in enumerate(table.rows):
                values.add(self._label(row), partial(table.where, number))
        return table

    def _need(self, split: str, values: LabelValues | None) -> Need | None:
        if split == SINGLE and self.label is not None:
            bounded = all(self.row_choice.needed(part) is not None for part in SPLITS)
            return Need(MOST_DIVIDED) if bounded else None
        needed = self.row_choice.needed("test" if split == SINGLE else split)
        if needed is None:
            return None
        further: Callable[[Row], None] | None = None
        if values is not None and self.label is not None:

            def further(row: Row) -> None:
                values.add(self._label(row), lambda: f"A row of the {split} split, behind those that are used,")

        if split in ("test", SINGLE):
            return Need(needed, further=further)
        return Need(needed, lambda row: not may_say_no_label(self._label(row)), further)

    def _divide(self, table: FileRows, taken: list[int]) -> dict[str, list[int]]:
        n = len(taken)
        n_validation, n_test = round(self.validation_fraction * n), round(self.test_fraction * n)
        sizes = {"train": n - n_validation - n_test, "validation": n_validation, "test": n_test}
        for split, size in sizes.items():
            if size < 1:
                raise UserError(
                    f"{table.name} has {n} rows, of which none are left for the {split} split, expected at least one: "
                    "change data.validation_fraction and data.test_fraction or name one file per split."
                )
        order = [taken[place] for place in permutation(n, self.split_seed)]
        return {
            "train": order[n_validation + n_test :],
            "validation": order[:n_validation],
            "test": order[n_validation : n_validation + n_test],
        }

    def _whole(self, split: str, table: FileRows) -> SourceRows:
        """A file as a split of its own; rows without a label are left out, but in the test split only told."""
        if split == "test":
            rows = self._rows(table, list(range(len(table.rows))), allow_empty=True)
            if self.label is not None:
                say_unlabelled(split, rows.labels, self.notes)
            return rows
        taken, left_out = parted_by_label(self._labels(table), self.label_names)
        rows = self._rows(table, taken)
        rows.left_out = left_out
        return rows

    def _rows(self, table: FileRows, chosen: list[int], allow_empty: bool = False) -> SourceRows:
        values = self._labels(table)
        return SourceRows(
            source_index=chosen,
            columns={column: [_text(table, row, column) for row in chosen] for column in self.text_columns},
            labels=label_numbers(table, chosen, [values[row] for row in chosen], self.label_names, allow_empty),
        )

    def _label(self, row: Row) -> Any:
        return None if self.label is None else row.get(self.label)

    def _labels(self, table: FileRows) -> list[Any]:
        return [self._label(row) for row in table.rows]

    def _find_label_names(self, values: LabelValues) -> list[str]:
        if self.given_label_names is not None:
            return self.given_label_names
        names = class_names(values.values)
        for name, writings in merged_labels(values.values, names).items():
            self.notes.say(f"the labels {listed([quoted(value) for value in writings])} are one class, {name}")
        if any(whole_number(value) == NO_LABEL for value in values.values):
            self.notes.say(
                "the label -1 is a class, since at most one other class or other negative numbers stand beside it"
                if str(NO_LABEL) in names
                else f"the label -1 means no label; data.label_names=[{','.join(['-1', *names[:20]])}] makes it a class"
            )
        return names

    def _files(self) -> dict[str, list[Path]]:
        if isinstance(self.path, Mapping):
            files = {split: [user_path(file)] for split, file in self.path.items() if file is not None}
            unknown = [split for split in files if split not in SPLITS]
            if unknown or not files:
                raise UserError(
                    f"data.path names the splits {', '.join(map(str, files)) or 'none'}, expected some of "
                    f"{', '.join(SPLITS)}: rename them."
                )
            return files
        if self.path is None:
            raise UserError(
                "data=table has no data.path, expected a file, a folder or a mapping from split to file: "
                "give data.path=FILE."
            )
        path = user_path(self.path)
        if not is_folder(path):
            return {SINGLE: [path]}
        found = files_by_split(path, self.notes)
        if not found:
            raise UserError(
                f"The folder {path} has no train, validation or test file, expected for instance train.csv: "
                "check data.path."
            )
        return found

    def _check_columns(self, table: FileRows, needs_label: bool) -> None:
        file = table.name
        if not table.rows:
            raise UserError(f"{file} has no row, so its split is empty, expected at least one row: check data.path.")
        present = list(dict.fromkeys(column for row in table.rows for column in row))
        wanted = [*self.text_columns, *([self.label] if self.label is not None and needs_label else [])]
        missing = [column for column in wanted if column not in present]
        if missing:
            raise UserError(
                f"{file} has no column {', '.join(missing)} (it has: {listed(present)}), expected the columns that "
                f"data.text and data.label name: {_other_sign(present)}set these, with data.label=null for unlabelled "
                "inputs."
            )

    def _check_table_options(self) -> None:
        repeated = len(set(self.text_columns)) < len(self.text_columns)
        reserved = {"index", "source_index", "label", "input_ids", "prediction", "prob", "readout"}
        clash = [column for column in self.text_columns if column in reserved]
        if not self.text_columns or repeated or clash:
            raise UserError(
                f"data.text={self.text_columns}, expected text columns, each once, none called "
                f"{', '.join(sorted(reserved))}: change the list or rename the column in the file."
            )
        fractions = (self.validation_fraction, self.test_fraction)
        if min(fractions) < 0 or sum(fractions) >= 1:
            raise UserError(
                f"data.validation_fraction={fractions[0]} and data.test_fraction={fractions[1]}, expected shares from "
                "0 to 1 that leave rows for training: lower them."
            )


def _other_sign(present: Sequence[str]) -> str:
    """Advice where the only column holds what divides the columns of another kind of file."""
    found = {";": "semicolons", "\t": "tabs", "|": "bars"}
    sign = next((name for mark, name in found.items() if len(present) == 1 and mark in present[0]), None)
    wanted = "name the file .tsv" if sign == "tabs" else "write commas instead"
    return f"cells are divided by {sign}, so {wanted}, or " if sign else ""


def _text(table: FileRows, row: int, column: str) -> str:
    value = table.rows[row].get(column)
    if is_empty(value):
        return "" if value is None or not isinstance(value, str) else value
    if isinstance(value, str | int | float | bool):
        return str(value)
    raise UserError(
        f"{table.where(row)} has a {type(value).__name__} in column {column}, expected text: flatten it or name "
        "another column in data.text."
    )
