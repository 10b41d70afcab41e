"""Rows in every form that a caller may have them in, and those that would be read otherwise than meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, Subset, SubsetRandomSampler

from twinlens.attribution.errors import UserError
from twinlens.given_inputs import in_their_words
from twinlens.given_rows import by_number, label_names, rows_of, text_columns, write_table, write_texts

TEXTS = ["one", "two", "three"]


class Rows(Dataset[str]):
    """As torch has them, without an end of its own."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, number: int) -> str:
        return TEXTS[number]


class Some(BatchSampler):
    """Batches of somebody's own."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Rows(), TEXTS),
        (Subset(Rows(), [2, 0]), ["three", "one"]),
        (DataLoader(Subset(Rows(), [1]), 2, shuffle=True), ["two"]),
        (DataLoader(Rows(), 2, shuffle=True), TEXTS),
        (pandas.DataFrame({"text": TEXTS}), TEXTS),
        (pandas.Series(TEXTS), TEXTS),
        (np.array(TEXTS), TEXTS),
        (datasets.Dataset.from_dict({"text": TEXTS}).with_format("torch"), TEXTS),
        (datasets.Dataset.from_dict({"text": TEXTS}).data.table, TEXTS),
        ((text for text in TEXTS), TEXTS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_are_those_that_were_passed(given: Any, expected: list[str]) -> None:
    assert [row["text"] for row in rows_of(given, "train")] == expected


def test_numbers_are_plain_and_empty_cells_are_none() -> None:
    table = pandas.DataFrame({"text": ["a", None], "label": [1, np.nan], "n": [np.int64(3), np.int64(4)]})
    rows = rows_of([*table.to_dict("records"), {"text": "b", "label": torch.tensor(2)}], "train")
    assert rows == [
        {"text": "a", "label": 1.0, "n": 3},
        {"text": None, "label": None, "n": 4},
        {"text": "b", "label": 2},
    ]


def test_labels_are_names_or_numbers_of_classes(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": label} for label in (1, 1.0, "yes", "no")]
    write_table(tmp_path / "rows.jsonl", rows, ["text"], ["no", "yes"], "train")
    written = [json.loads(line)["label"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert written == ["yes", "yes", "yes", "no"]


def test_a_number_that_means_two_classes_is_refused(tmp_path: Path) -> None:
    def written(labels: list[Any], classes: list[str]) -> list[Any]:
        rows = [{"text": "a", "label": label} for label in labels]
        file = write_table(tmp_path / "rows.jsonl", rows, ["text"], classes, "train")
        return [json.loads(line)["label"] for line in Path(file).read_text().splitlines()]

    with pytest.raises(UserError, match=r"train\[1\] has the label 1, which is the class 1 \('2'\) by number"):
        written([3, 1], ["1", "2", "3"])
    assert written(["1", 3], ["1", "2", "3"]) == ["1", "3"]
    assert written([1, 0], ["0", "1"]) == ["1", "0"]


def of_classes(*names: str) -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)


@pytest.mark.parametrize(
    ("names", "expected"), [(("no", "yes"), ["no", "yes"]), (("YES", "NO"), ["yes", "no"]), (("x", "y"), ["no", "yes"])]
)
def test_a_data_set_may_number_its_classes_in_its_own_order(names: Any, expected: list[str], tmp_path: Path) -> None:
    data, classes = DataLoader(of_classes(*names)), ["no", "yes"]  # type: ignore[arg-type]
    named = by_number(label_names(data), classes, "train")
    file = write_table(tmp_path / "rows.jsonl", rows_of(data, "train"), ["text"], classes, "train", named)
    assert [json.loads(line)["label"] for line in Path(file).read_text().splitlines()] == expected
    with pytest.raises(UserError, match="by names of which the model has some and not 'maybe'"):
        by_number(label_names(of_classes("yes", "maybe")), classes, "train")


def test_no_label_is_no_label_of_any_form(tmp_path: Path) -> None:
    """A run leaves such rows out, and all behind them would have other numbers than they were passed with."""
    rows = [{"text": "a", "label": label} for label in (-1, None, 0)]
    file = write_table(tmp_path / "rows.jsonl", rows, ["text"], ["no", "yes"], "texts")
    assert [json.loads(line).get("label") for line in Path(file).read_text().splitlines()] == [None, None, "no"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (datasets.DatasetDict(train=datasets.Dataset.from_list([])), r"several splits .* train\['train'\]"),
        ({"text": TEXTS}, "train is a dict whose text holds many rows"),
        (set(TEXTS), r"a set, which has no order.*sorted\(train\)"),
        (DataLoader(Rows(), 2, sampler=SubsetRandomSampler([0])), "with a SubsetRandomSampler, which picks rows"),
        (DataLoader(Rows(), batch_sampler=Some(SequentialSampler(Rows()), 1, False)), "with a Some, which picks rows"),
        (DataLoader([("one", 0)], 1, collate_fn=list), r"train\[0\] is a tuple; .* not what collate_fn makes"),
        ([{}], r"train\[0\] is an empty dict"),
        (b"one", r"train\[0\] is an int"),
    ],
)  # fmt: skip
def test_rows_that_would_be_read_otherwise_are_refused(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rows_of(given, "train")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "prompt": "b"}, r"texts\[0\] has a text and a prompt"),
        ({"prompt": "a", "completions": " b"}, r"texts\[0\] has the column completions, .* expected completion"),
        ({"promt": "a"}, "expected prompt"),
    ],
)
def test_queries_are_not_read_in_part(row: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        write_texts(tmp_path / "queries.jsonl", [row], is_query=True)
    write_texts(tmp_path / "queries.jsonl", [{"prompt": "a", "id": 3, "context": "c"}], is_query=True)


@pytest.mark.parametrize("column", ["labels", "lable", "Label"])
def test_a_column_that_looks_like_labels_is_no_text(column: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="and no label; expected label"):
        text_columns([{"text": "a", column: "yes"}])
    with pytest.raises(UserError, match=r"train\[0\] has the column"):
        write_table(tmp_path / "rows.jsonl", [{"text": "a", column: 1}], ["text"], ["no", "yes"], "train")


def test_messages_speak_of_what_was_passed() -> None:
    inputs = Path("/tmp/x-1/given")
    said = f"{inputs}/train.jsonl row 3 has no text, {inputs}/queries.jsonl:1 neither; see {inputs}/test.jsonl."
    assert in_their_words(said, inputs) == "train[3] has no text, texts[0] neither; see texts."
    told = f"the head of model.path={inputs}/model is none: id2label in config.json has two."
    bare = "1 of 2 have none (first: queries.jsonl row 1), as /data/train.jsonl row 3"
    assert in_their_words(bare, inputs) == "1 of 2 have none (first: texts[1]), as /data/train.jsonl row 3"
    empty = "Row 2 of the source of the test split of data=table has no token at all."
    assert in_their_words(empty, inputs) == "texts[2] has no token at all."
    assert in_their_words(told, inputs) == "the head of the model is none: id2label of its config has two."
