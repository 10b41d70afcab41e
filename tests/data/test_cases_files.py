"""Data files of public accident reports: each is read rightly or refused in one sentence with its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.table import TableDataModule

PAIR = ["premise", "hypothesis"]


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> Path:
    """The cases beside the checkout."""
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip("needs ../shared/cases (data files of accident reports beside the checkout), which is absent")
    return folder


def prepared(tokenizer: Any, path: Path, text: list[str]) -> TableDataModule:
    data = TableDataModule(path=str(path), text=text)
    data.prepare(tokenizer)
    return data


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("08-unclosed-quote-swallows-rows/d1.csv", ["text"], r"d1\.csv:11 opens a quotation mark that is never closed"),
        ("11-lone-surrogate/d5.jsonl", ["text"], r"d5\.jsonl:4 has half a surrogate pair, '\\ud83d'"),
        (
            "files/date.parquet",
            PAIR,
            r"date\.parquet row 0 has a value of the type date32\[day\] in the column",
        ),
        ("files/deep.jsonl", PAIR, r"deep\.jsonl:1 is nested too deep"),
        ("files/duphead.csv", PAIR, r"duphead\.csv:1 names the column 'label' twice"),
        ("files/flip.parquet", PAIR, r"flip\.parquet cannot be read from row 0 on \(Corrupt snappy"),
        ("files/label_superscript.jsonl", PAIR, r"label_superscript\.jsonl row 1 has the label '²'"),
    ],
)
def test_what_cannot_be_right_is_refused(cases: Path, tokenizer: Any, name: str, text: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepared(tokenizer, cases / name, text)


def test_what_can_be_right_is_read_and_said(cases: Path, tokenizer: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(cases / "09-folder-with-val-csv" / "data", tmp_path / "data")
    assert list(prepared(tokenizer, folder, ["text"]).splits) == ["train", "validation", "test"]
    unlabelled = prepared(tokenizer, cases / "10-label-minus-one" / "d6.jsonl", ["text"])
    assert unlabelled.label_names == ["0", "1"]
    assert unlabelled.report["no_gold_label"]["count"] > 0
    assert "the label -1 means no label; data.label_names=[-1,0,1] makes it a class" in unlabelled.notes.lines
    lines = prepared(tokenizer, cases / "15-json-lines-in-json" / "d4.json", ["text"])
    assert sum(map(len, lines.splits.values())) == 40
    assert "d4.json holds JSON lines, one row in each, and is read as .jsonl" in lines.notes.lines
