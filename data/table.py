"""Any table with text columns and a label: CSV, TSV, JSON, JSONL or Parquet; also unlabelled inputs to explain.

`path` is one of

- a file: labelled rows are split into train, validation and test by a seeded permutation; a table without any label
  (or `label: null`) has nothing to train on and becomes the test split as it stands, without train and validation;
- a folder with train.*, validation.* (or dev.*) and test.*, of which any may be absent, but not all;
- a mapping {train: file, validation: file, test: file}, any of them absent.

In a folder or mapping the rows of the test split may be unlabelled (label -1); in train and validation every row needs
a label. Rows keep their number in the file as `source_index`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.file_readers import Row, read_rows, split_file
from twinlens.data.labels import is_empty, label_name, label_numbers
from twinlens.data.sampling import permutation
from twinlens.data.text_data_module import SPLITS, SourceRows, TextDataModule

FILE_NAMES = {"train": ["train"], "validation": ["validation", "dev"], "test": ["test"]}


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
        tables = {split: read_rows(file) for split, file in files.items()}
        for split, rows in tables.items():
            # beside labelled training rows a test file may come without the label column
            self._check_columns(files[split], rows, needs_label=not (split == "test" and "train" in tables))
        single = tables.get("all")
        if single is None:
            self.label_names = self._find_label_names(tables.get("train") or [r for t in tables.values() for r in t])
            return {
                split: self._rows(files[split], rows, list(range(len(rows))), allow_empty=split == "test")
                for split, rows in tables.items()
            }
        self.label_names = self._find_label_names(single)
        if all(is_empty(value) for value in self._labels(single)):
            return {"test": self._rows(files["all"], single, list(range(len(single))), allow_empty=True)}
        return {
            split: self._rows(files["all"], single, rows, allow_empty=False)
            for split, rows in self._divide(files["all"], len(single)).items()
        }

    def _divide(self, file: Path, n: int) -> dict[str, list[int]]:
        n_validation, n_test = round(self.validation_fraction * n), round(self.test_fraction * n)
        sizes = {"train": n - n_validation - n_test, "validation": n_validation, "test": n_test}
        for split, size in sizes.items():
            if size < 1:
                raise UserError(
                    f"{file} has {n} rows, of which none are left for the {split} split, expected at least one: "
                    "change data.validation_fraction and data.test_fraction or name one file per split."
                )
        order = permutation(n, self.split_seed)
        return {
            "train": order[n_validation + n_test :],
            "validation": order[:n_validation],
            "test": order[n_validation : n_validation + n_test],
        }

    def _rows(self, file: Path, rows: list[Row], chosen: list[int], allow_empty: bool) -> SourceRows:
        values = self._labels(rows)
        return SourceRows(
            source_index=chosen,
            columns={column: [_text(file, rows, row, column) for row in chosen] for column in self.text_columns},
            labels=label_numbers(str(file), chosen, [values[row] for row in chosen], self.label_names, allow_empty),
        )

    def _labels(self, rows: list[Row]) -> list[Any]:
        return [None if self.label is None else row.get(self.label) for row in rows]

    def _find_label_names(self, rows: list[Row]) -> list[str]:
        if self.given_label_names is not None:
            return self.given_label_names
        names = {label_name(value) for value in self._labels(rows) if not is_empty(value)}
        if all(name.lstrip("-").isdigit() for name in names):
            return sorted(names, key=int)  # 2 before 10
        return sorted(names)

    def _files(self) -> dict[str, Path]:
        if isinstance(self.path, Mapping):
            files = {split: Path(file).expanduser() for split, file in self.path.items() if file is not None}
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
        path = Path(self.path).expanduser()
        if not path.is_dir():
            return {"all": path}
        found = {split: split_file(path, names) for split, names in FILE_NAMES.items()}
        files = {split: file for split, file in found.items() if file is not None}
        if not files:
            raise UserError(
                f"The folder {path} has no train, validation or test file, expected for instance train.csv: "
                "check data.path."
            )
        return files

    def _check_columns(self, file: Path, rows: list[Row], needs_label: bool) -> None:
        if not rows:
            raise UserError(f"{file} has no row, so its split is empty, expected at least one row: check data.path.")
        present = list(dict.fromkeys(column for row in rows for column in row))
        wanted = [*self.text_columns, *([self.label] if self.label is not None and needs_label else [])]
        missing = [column for column in wanted if column not in present]
        if missing:
            raise UserError(
                f"{file} has no column {', '.join(missing)} (it has: {', '.join(present)}), expected the columns that "
                "data.text and data.label name: set these, with data.label=null for unlabelled inputs."
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


def _text(file: Path, rows: list[Row], row: int, column: str) -> str:
    value = rows[row].get(column)
    if value is None:
        return ""
    if isinstance(value, str | int | float | bool):
        return str(value)
    raise UserError(
        f"{file} row {row} has a {type(value).__name__} in column {column}, expected text: flatten it or name another "
        "column in data.text."
    )
