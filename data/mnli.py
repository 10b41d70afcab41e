"""MNLI (Williams, Nangia, Bowman 2018): does a premise entail a hypothesis; and HANS in the place of its test split.

As published by the first paper: 10 000 sampled training rows, the matched validation set is the test split, since the
labels of the original test set are not public. The checkpoint must not be chosen on the split it is tested on, so the
validation split is drawn from the training file as well, from the rows beyond the sample.

Three forms are read: the published TSV and JSONL (sentence1, sentence2, gold_label), the hub's Parquet (premise,
hypothesis, label as a number), and tables with premise, hypothesis and gold_label. Rows whose annotators found no
majority (gold label "-", −1 or null) are left out and reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, listed
from twinlens.data.dataset_name import full_name
from twinlens.data.file_readers import UNQUOTED_TSV, FileRows, Need, Row, first_of, is_folder, read_files, user_path
from twinlens.data.hans_rows import HANS_COLUMNS, hans_rows
from twinlens.data.hub import fetch
from twinlens.data.labels import Fold, is_empty, label_numbers, whole_number
from twinlens.data.row_choice import SPLITS
from twinlens.data.sampling import permutation
from twinlens.data.split_files import only_files, say_unused
from twinlens.data.text_data_module import SourceRows, TextDataModule

LABELS = ["entailment", "neutral", "contradiction"]
TEMPLATES = {"reference": "Premise : {premise}/ Hypothesis : {hypothesis}/ Answer :"}
COLUMNS = {
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "sentence2"),
    "gold_label": ("gold_label", "label"),
}
NO_MAJORITY = "-"
PUBLISHED = {".tsv": UNQUOTED_TSV}
HUB_REPOSITORY = "nyu-mll/multi_nli"
HUB_FILES = {"train": "data/train-00000-of-00001.parquet", "matched": "data/validation_matched-00000-of-00001.parquet"}
NAMES = {"train": re.compile(r"^(.*_)?train(-\d+-of-\d+)?$"), "matched": re.compile(r"(dev|validation)_matched")}
SPLIT_SIZES = {"train": 6000, "validation": 1000, "test": None}


class MnliDataModule(TextDataModule):
    """MNLI as the first paper uses it.

    Args:
        name: the dataset's name; the module's own `name` adds what `split_validation` and `test` make of it.
        path: folder with a train file and the matched validation file, found by their names, or the validation file
            alone; None: download both from the Hugging Face hub.
        template: `reference` or a format string over premise and hypothesis.
        label_names: class order of a model trained elsewhere; None: entailment, neutral, contradiction.
        train_size: rows sampled from the train file; None: all but the validation rows.
        validation_size: rows of the train file, beyond the sample, set aside for validation.
        sample_seed: which rows these are.
        split_validation: cut all three splits out of the matched validation set, for want of the train file.
        split_sizes: rows of each split then; None for test: the rest.
        test: `hans` puts that challenge set in the place of the test split.
        test_path: file of the challenge set, or its folder.
        heuristic: the rows of HANS that are used; None: all.
        options: see `TextDataModule`.
    """

    papers: ClassVar[tuple[str, ...]] = ("williams2018mnli", "mccoy2019hans if test=hans")
    hub_dataset: ClassVar[tuple[str, ...]] = (f"{HUB_REPOSITORY} if path=null",)
    licence: ClassVar[tuple[str, ...]] = ("differs by genre, see the paper on MNLI", "HANS: MIT if test=hans")

    def __init__(
        self,
        name: str = "mnli",
        path: str | None = None,
        template: str | None = None,
        label_names: Sequence[str] | None = None,
        train_size: int | None = 10_000,
        validation_size: int = 1000,
        sample_seed: int = 0,
        split_validation: bool = False,
        split_sizes: Mapping[str, int | None] | None = None,
        test: Literal["hans"] | None = None,
        test_path: str | None = None,
        heuristic: Literal["lexical_overlap", "subsequence", "constituent"] | None = "lexical_overlap",
        **options: Any,
    ) -> None:
        super().__init__(full_name(name, split_validation, test), path, template, **options)
        self.train_size = train_size
        self.validation_size = validation_size
        self.sample_seed = sample_seed
        self.split_validation = split_validation
        self.split_sizes = dict(SPLIT_SIZES if split_sizes is None else split_sizes)
        self.test = test
        self.test_path = test_path
        self.heuristic = heuristic
        self.label_names = self._class_order(label_names)
        self.text_columns = ["premise", "hypothesis"]
        self.pair_columns = ("premise", "hypothesis")
        self.entailment_name = "entailment"
        if test == "hans":
            self.plant_columns = list(HANS_COLUMNS)
            entailed = [label.lower() == "entailment" for label in self.label_names]
            fold = Fold(("entailment", "non-entailment"), tuple(0 if found else 1 for found in entailed))
            self.folds = {"test": fold}
        self._check_mnli_options()

    def templates(self) -> dict[str, str]:
        """`reference`."""
        return TEMPLATES

    def cut_column(self, shown: Sequence[str]) -> str:
        """The premise, the longer of the two; the hypothesis is what is judged."""
        return "premise" if "premise" in shown else super().cut_column(shown)

    def load_splits(self) -> dict[str, SourceRows]:
        """Read the files, sample the training rows, put the challenge set in where asked."""
        splits = self._cut_validation() if self.split_validation else self._sampled()
        if self.test_path is not None:
            splits["test"] = hans_rows(
                self.test_path, self.heuristic, self.folds["test"].names, self.notes, self.row_choice.needed("test")
            )
        return splits

    def _sampled(self) -> dict[str, SourceRows]:
        files = self._files("train")
        if not files:
            raise UserError(
                f"{self.path} holds no train file of MNLI, expected train.tsv or train.jsonl: put it there, or set "
                "data.split_validation=true to cut all splits out of the validation set, as all results will then say."
            )
        table, taken, left_out = _read(files, self.notes)
        sizes = {"validation": self.validation_size, "train": self.train_size}
        cut = _cut(taken, sizes, self.sample_seed, table.name, "data.train_size and data.validation_size")
        splits = {split: self._rows(table, cut[split]) for split in ("train", "validation")}
        splits["train"].left_out = left_out
        matched = self._matched_files() if self.test is None else []
        if matched:
            splits["test"] = self._matched(matched)
        if self.path is not None:
            say_unused(user_path(self.path), [*files, *matched], self.notes)
        return splits

    def _matched(self, files: list[Path]) -> SourceRows:
        table, taken, left_out = _read(files, self.notes, self.row_choice.needed("test"))
        matched = self._rows(table, taken)
        matched.left_out = left_out
        return matched

    def _cut_validation(self) -> dict[str, SourceRows]:
        files = self._matched_files()
        table, taken, left_out = _read(files, self.notes)
        cut = _cut(taken, self.split_sizes, self.split_seed, table.name, "data.split_sizes")
        splits = {split: self._rows(table, cut[split]) for split in SPLITS}
        if self.path is not None and files[0] != user_path(self.path):
            say_unused(user_path(self.path), files, self.notes)
        splits["train"].left_out = left_out
        return splits

    def _rows(self, table: FileRows, chosen: list[int]) -> SourceRows:
        fields = {field: [_value(table, row, field) for row in chosen] for field in COLUMNS}
        gold = [_label(value) for value in fields.pop("gold_label")]
        order = [label.lower() for label in self.label_names]
        return SourceRows(chosen, fields, label_numbers(table, chosen, gold, order))

    def _matched_files(self) -> list[Path]:
        files = self._files("matched")
        if not files:
            raise UserError(
                f"{self.path} holds no matched validation file of MNLI, expected dev_matched.tsv, "
                "validation_matched.jsonl or the like: check data.path."
            )
        return files

    def _files(self, part: str) -> list[Path]:
        """The file of a part, or its shards; none without one."""
        if self.path is None:
            return [fetch(HUB_REPOSITORY, HUB_FILES[part], "MNLI", "a train and a dev_matched file")]
        path = user_path(self.path)
        if not is_folder(path) and path.is_file():
            return [path] if part == "matched" else []
        return only_files(path, NAMES[part], "data.path")

    def _class_order(self, names: Sequence[str] | None) -> list[str]:
        if names is None or all(re.fullmatch(r"LABEL_\d+", name) for name in names):
            return list(LABELS)  # a checkpoint that never named its classes is taken at their usual order
        if sorted(name.lower() for name in names) != sorted(LABELS):
            raise UserError(
                f"data={self.name} needs a model of natural language inference, but the labels are "
                f"[{', '.join(names)}], expected {', '.join(LABELS)} in the model's own order: choose a model trained "
                "for them, or train it on these data (fit=true)."
            )
        return list(names)

    def _check_mnli_options(self) -> None:
        if (self.test is None) != (self.test_path is None):
            raise UserError(
                f"data.test={self.test or 'null'} and data.test_path={self.test_path or 'null'}, expected both or "
                "neither: for HANS give data.test=hans data.test_path=FILE."
            )
        if set(self.split_sizes) != set(SPLITS) or None in (self.split_sizes["train"], self.split_sizes["validation"]):
            raise UserError(
                f"data.split_sizes={self.split_sizes}, expected numbers of rows for train and validation, and for test "
                "a number or null for the rest: set data.split_sizes.train and its neighbours."
            )


def _read(files: list[Path], notes: Notes, needed: int | None = None) -> tuple[FileRows, list[int], list[int]]:
    """The rows of a part, the numbers of those with a gold label, the numbers of the others.

    Args:
        needed: how many with a gold label are needed, the first ones; None: all.
    """
    need = None if needed is None else Need(needed, lambda row: not _has_no_gold(_gold(row)))
    table = read_files(files, formats=PUBLISHED, notes=notes, need=need)
    for row, example in enumerate(table.rows[:1]):
        missing = [names for names in COLUMNS.values() if first_of(example, names) is None]
        if missing:
            raise UserError(
                f"{table.where(row)} has the columns {listed(list(example))}, expected also "
                f"{', '.join(' or '.join(names) for names in missing)} as in the published MNLI: use its files, or "
                "data=table for others."
            )
    without = [_has_no_gold(_value(table, row, "gold_label")) for row in range(len(table.rows))]
    return table, [row for row, no in enumerate(without) if not no], [row for row, no in enumerate(without) if no]


def _gold(row: Row) -> Any:
    column = first_of(row, COLUMNS["gold_label"])
    return None if column is None else row[column]


def _has_no_gold(value: Any) -> bool:
    return is_empty(value) or whole_number(value) == -1 or str(value).strip() == NO_MAJORITY


def _value(table: FileRows, row: int, field: str) -> Any:
    column = first_of(table.rows[row], COLUMNS[field])
    value = None if column is None else table.rows[row][column]
    if field != "gold_label" and not isinstance(value, str):
        raise UserError(
            f"{table.where(row)} has no text for the {field}, expected one in the column "
            f"{' or '.join(COLUMNS[field])}: mend that row."
        )
    return value


def _label(value: Any) -> Any:
    """The name of a label that may be a class number, as on the hub."""
    number = whole_number(value)
    return LABELS[number] if number is not None and 0 <= number < len(LABELS) else value


def _cut(taken: list[int], sizes: Mapping[str, int | None], seed: int, file: str, options: str) -> dict[str, list[int]]:
    """Disjoint rows of each split by a seeded permutation; a size of None gets what the others leave."""
    asked = sum(size or 0 for size in sizes.values())
    least = asked + sum(size is None for size in sizes.values())
    if least > len(taken) or any(size is not None and size < 1 for size in sizes.values()):
        raise UserError(
            f"{options} ask for {', '.join(f'{size} ({split})' for split, size in sizes.items() if size is not None)} "
            f"rows, but {file} has {len(taken)} labelled ones, expected at least one for each split and no more than "
            "there are: lower or raise them."
        )
    order = [taken[place] for place in permutation(len(taken), seed)]
    cut, start = {}, 0
    for split, size in sorted(sizes.items(), key=lambda item: item[1] is None):
        stop = len(order) if size is None else start + size
        cut[split], start = order[start:stop], stop
    return cut
