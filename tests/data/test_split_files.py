"""Files read for each split, and the sentences on the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes
from twinlens.data.file_readers import read_files
from twinlens.data.split_files import files_by_split


def folder(at: Path, *names: str) -> Path:
    for name in names:
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text("text,label\na,0\n")
    return at


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "training", "Train", "TRAINING"]),
        ("validation", ["val", "valid", "dev", "validation", "eval", "evaluation", "Dev"]),
        ("test", ["test", "testing", "Test"]),
    ],
)
def test_names_of_splits(tmp_path: Path, split: str, names: list[str]) -> None:
    for name in names:
        for ending in (".csv", ".csv.gz", ".jsonl", "-00000-of-00001.parquet", "-00000-of-00001-abc123.parquet"):
            place = folder(tmp_path / f"{name}{ending}".replace(".", "_"), f"{name}{ending}")
            assert files_by_split(place, Notes()) == {split: [place / f"{name}{ending}"]}


def test_unused_files_are_named(tmp_path: Path) -> None:
    notes = Notes()
    names = ("train.csv", "val.csv", "test_unlabelled.csv", "README.md", "old/train.csv", ".git/x.csv")
    assert list(files_by_split(folder(tmp_path, *names), notes)) == ["train", "validation"]
    assert notes.lines == [f"not used in {tmp_path}, since no split is called so: README.md, old/, test_unlabelled.csv"]


def test_the_layout_of_the_hub(tmp_path: Path) -> None:
    names = [f"data/train-0000{n}-of-00003.csv" for n in (2, 0, 1)]
    notes = Notes()
    found = files_by_split(folder(tmp_path, *names, "data/test-00000-of-00001.csv", "README.md"), notes)
    assert [file.name for file in found["train"]] == [f"train-0000{n}-of-00003.csv" for n in range(3)]
    assert notes.lines == [f"not used in {tmp_path}, since no split is called so: README.md"]
    (tmp_path / names[0]).write_text("text,label\nb,1\nc\n")
    with pytest.raises(UserError, match=r"train-00002-of-00003\.csv:3 has 1 cells"):
        read_files(found["train"])
    (tmp_path / names[0]).write_text("text,label\nb,1\nc,0\n")
    table = read_files(found["train"])
    assert [row["text"] for row in table.rows] == ["a", "a", "b", "c"]
    assert table.where(3) == f"{found['train'][2]} row 1"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("val.csv", "dev.csv"), r"holds dev\.csv, val\.csv for one split, expected one file"),
        (("train.csv", "train.csv.gz"), r"train\.csv, train\.csv\.gz for one split"),
        (("train.csv", "train-00000-of-00001.csv"), "for one split"),
        (("train-00000-of-00002.csv",), "expected each of the 2 shards"),
        (("train-00000-of-00002.csv", "train-00001-of-00003.csv"), "expected each of the 2 shards"),
    ],
)
def test_two_files_for_one_split_and_missing_shards(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        files_by_split(folder(tmp_path, *names), Notes())
