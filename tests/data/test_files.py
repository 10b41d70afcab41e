"""Readers: every format gives the same rows, every mistake its file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from attribution.base import UserError
from data.files import read_rows
from data.report import Notes
from data.split_files import files_by_split

ROWS = [
    {"premise": 'He said "yes", twice', "hypothesis": "He spoke.", "label": "entailment"},
    {"premise": "Line\u2028separator and \x85 next line", "hypothesis": "", "label": "neutral"},
    {"premise": '"Quoted" start', "hypothesis": "Ünïcode 日本", "label": "contradiction"},
]


def write(folder: Path, suffix: str, rows: list[dict[str, str]] = ROWS, stem: str = "rows") -> Path:
    file = folder / f"{stem}{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        file.write_bytes(("\n".join(lines) + "\n").encode())
    elif suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    else:
        file.write_bytes(("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n").encode())
    return file


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str):
    assert read_rows(write(tmp_path, suffix)) == ROWS


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_bytes("\ufeffpremise,label\r\na,b\r\n".encode())
    assert read_rows(file) == [{"premise": "a", "label": "b"}]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert read_rows(file) == [{"a": 1}, {"a": 2}]


def test_long_cells_are_read(tmp_path: Path):
    rows = [{"premise": "x" * 200_000, "label": "a"}]
    assert read_rows(write(tmp_path, ".csv", rows)) == rows


def test_relative_paths_count_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, ".jsonl")
    monkeypatch.chdir(tmp_path)
    assert read_rows("rows.jsonl") == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"a": 1}\n{"a": \n', r"rows\.jsonl:2 is malformed JSON"),
        ("rows.jsonl", '{"a": "x\u2028y"}\n{"a" 1}\n'.encode(), r"rows\.jsonl:2 is malformed JSON"),
        ("rows.jsonl", b'{"a": 1}\n[1]\n', r"rows\.jsonl:2 holds a list, expected a JSON object"),
        ("rows.json", b'[{"a": 1},\n{"a" 2}]', r"rows\.json:2 is malformed JSON"),
        ("rows.json", b'{"a": 1}', r"rows\.json holds a dict, expected a JSON list"),
        ("rows.json", b'[{"a": 1}, 3]', r"rows\.json entry 1 holds a int, expected a JSON object"),
        ("rows.csv", b"a,b\n1,2\n3\n", r"rows\.csv:3 has 1 cells, expected 2 as in the header"),
        ("rows.tsv", b"a\tb\n1\t2\t3\n", r"rows\.tsv:2 has 3 cells, expected 2"),
        ("rows.csv", b"a,b\n\xff,2\n", r"rows\.csv is not UTF-8 \(byte 4\)"),
        ("rows.parquet", b"no parquet", r"rows\.parquet is no Parquet file"),
        ("rows.xml", b"", r"suffix '\.xml', expected one of \.json, \.jsonl, \.csv, \.tsv, \.parquet"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / name)


def test_missing_file_and_ambiguous_folder(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.csv does not exist, expected a readable file: check data\.path"):
        read_rows(tmp_path / "none.csv")
    write(tmp_path, ".csv", stem="train")
    write(tmp_path, ".tsv", stem="train")
    with pytest.raises(UserError, match=r"train\.csv, train\.tsv for one split, expected one file"):
        files_by_split(tmp_path, Notes())
    (tmp_path / "train.tsv").unlink()
    assert files_by_split(tmp_path, Notes()) == {"train": [tmp_path / "train.csv"]}
