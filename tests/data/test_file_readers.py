"""Readers: every format gives the same rows, every mistake its file and line."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes
from twinlens.data.file_readers import UNQUOTED_TSV, Need, read_rows
from twinlens.data.split_files import files_by_split

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


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_packed_files_are_read(tmp_path: Path, suffix: str):
    file = write(tmp_path, suffix)
    packed = tmp_path / f"packed{suffix}.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read_rows(packed) == ROWS
    packed.write_bytes(gzip.compress(file.read_bytes())[:-9])
    with pytest.raises(UserError, match=r"packed\.\w+\.gz cannot be unpacked"):
        read_rows(packed)
    packed.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"cannot be unpacked \(Not a gzipped file"):
        read_rows(packed)


def test_quoting_of_tsv(tmp_path: Path):
    file = tmp_path / "rows.tsv"
    rows = [{"text": 'He said "yes"', "label": "a\tb"}, {"text": "two\nlines", "label": '"'}]
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["text", "label"], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    notes = Notes()
    assert read_rows(file, notes=notes) == rows
    assert notes.lines == ["rows.tsv has 1 row(s) that go over several lines, quoted, from line 3"]
    file.write_text('text\tlabel\n"Quoted" start\ta\n"Hi."\tb\n')
    assert read_rows(file, notes=notes) == [{"text": '"Quoted" start', "label": "a"}, {"text": '"Hi."', "label": "b"}]
    assert "rows.tsv is read without quoting" in notes.lines[-1]
    file.write_text('text\tlabel\n"Hi."\tb\n')
    assert read_rows(file) == [{"text": "Hi.", "label": "b"}]
    assert read_rows(file, formats={".tsv": UNQUOTED_TSV}) == [{"text": '"Hi."', "label": "b"}]
    file.write_text('text\tlabel\n"He ""did"""\tb\n')
    assert read_rows(file, formats={".tsv": UNQUOTED_TSV}) == [{"text": 'He "did"', "label": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b'a,b\n1,"2\n3,4\n', r"rows\.csv:2 opens a quotation mark that is never closed"),
        ("rows.tsv", b'a\tb\n1\t"2\n3\t4\n', r"rows\.tsv:2 opens a quotation mark that is never closed"),
        ("rows.csv", b'a,b\n1,"2\n3,"4"\n', r"rows\.csv:2 cannot be read \(',' expected after '\"' in line 3\)"),
        ("rows.csv", b"a,a\n1,2\n", r"rows\.csv:1 names the column 'a' twice"),
        ("rows.csv", b"a,b\n1,2,3\n", r"rows\.csv:2 has 3 cells, expected 2"),
        ("rows.csv", b"a,b\n1,\x002\n", r"rows\.csv:2 has a NUL character in '\\x002'"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16"), r"not UTF-8 \(byte 0\) in line 1.*iconv -f utf-16"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16-le"), "NUL character .* UTF-16"),
        ("rows.csv", b"a,b\n1,2\n3,\xe9\n", r"not UTF-8 \(byte 10\) in line 3.*iconv -f latin1"),
        ("rows.jsonl", b'{"a": 1, "a": 2}\n', r"rows\.jsonl:1 names the column 'a' twice in one object"),
        ("rows.json", b'[{"a": {"b": 1, "b": 2}}]', r"rows\.json names the column 'b' twice in one object"),
        ("rows.jsonl", b'{"a": ' + b"1" * 5000 + b"}", r"rows\.jsonl:1 holds a number of 5000 digits"),
        ("rows.jsonl", b'{"a": "\\ud83d"}', r"rows\.jsonl:1 has half a surrogate pair"),
        ("rows.jsonl", b'{"\\ud83d": 1}', r"rows\.jsonl:1 has half a surrogate pair"),
        ("rows.json", b'[{"a": ["\\u0000"]}]', r"rows\.json entry 0 has a NUL"),
        ("rows.jsonl", b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", r"rows\.jsonl:1 is nested more than 100 deep"),
        ("rows.json", b"[" * 200_000, r"rows\.json:1 is nested too deep"),
        ("rows.json", b'{"a": 1}\n{"a": \n', r"rows\.json:2 is malformed JSON"),
        ("rows.jsonl", b'{"a": "' + b"x" * 1_000_001 + b'"}', r"rows\.jsonl:1 has a text of 1000001 characters"),
        ("rows.csv", b"a\n" + b"x" * 1_000_001, r"rows\.csv:2 has a text longer than 1000000 characters"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_place(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pyarrow.array([0, 2**31 - 1], pyarrow.int32()).cast(pyarrow.date32()), r"row 1 .* date32"),
        (pyarrow.array([0, 2**62], pyarrow.int64()).cast(pyarrow.timestamp("us")), r"row 1 .* timestamp"),
        (pyarrow.array([0, 2**62], pyarrow.int64()).cast(pyarrow.duration("s")), r"row 1 .* duration"),
        (pyarrow.array([1, 2], pyarrow.int64()).cast(pyarrow.timestamp("s", "No/Where")), r"row 0 .* timestamp"),
        (pyarrow.array(["a", "\x00"]), r"row 1 has a NUL"),
        (pyarrow.array([b"a", b"\xff"]).cast(pyarrow.string(), safe=False), r"row 1 .* cannot be read|rows from"),
    ],
)
def test_values_of_parquet_out_of_range(tmp_path: Path, column: pyarrow.Array, message: str):
    pyarrow.parquet.write_table(pyarrow.table({"a": column}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=rf"rows\.parquet {message}"):
        read_rows(tmp_path / "rows.parquet")


def test_parquet_as_arrow_reads_it(tmp_path: Path):
    values = ["x", None, "y", "x", ""]
    table = pyarrow.table(
        {
            "large": pyarrow.array(values, pyarrow.large_string()),
            "category": pyarrow.array(values).dictionary_encode(),
            "number": pyarrow.array([1, 2, None, 3, 1]).dictionary_encode(),
            "list": [["a"], None, ["b", "c"], [], ["z"]],
            "object": [{"x": "1"}] * 5,
            "bytes": [b"1", None, b"\xff", b"", b"1"],
        }
    )
    for options in ({}, {"store_schema": False}, {"use_dictionary": False, "row_group_size": 2}):
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", **options)
        assert read_rows(tmp_path / "rows.parquet") == pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    twice = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(twice, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet names the column 'a' twice"):
        read_rows(tmp_path / "rows.parquet")


def test_bombs_have_bounds(tmp_path: Path):
    text = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 20_000_000, pyarrow.int8()), pyarrow.array(["a b"]))
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet has more than 2000000 rows"):
        read_rows(tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet", need=Need(3)) == [{"text": "a b"}] * 3
    long = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1] * 20_000), pyarrow.array(["a", "x" * 900_000]))
    pyarrow.parquet.write_table(pyarrow.table({"text": long}), tmp_path / "long.parquet")
    with pytest.raises(UserError, match=r"long\.parquet unpacks to more than"):
        read_rows(tmp_path / "long.parquet")
    (tmp_path / "line.jsonl.gz").write_bytes(gzip.compress(b"a" * 20_000_000, 1))
    with pytest.raises(UserError, match=r"line\.jsonl\.gz:1 is longer than"):
        read_rows(tmp_path / "line.jsonl.gz")


def test_a_need_ends_reading(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"a": {n}}}\n' for n in range(9)) + "broken")
    assert [row["a"] for row in read_rows(file, need=Need(3))] == [0, 1, 2]
    assert [row["a"] for row in read_rows(file, need=Need(3, lambda row: row["a"] % 2 == 1))] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(UserError, match=r"rows\.jsonl:10 is malformed"):
        read_rows(file, need=Need(3, further=lambda row: None))


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name, message in [
        ("folder.csv", "is a folder, expected a file"),
        ("pipe.csv", "does not exist, expected a readable file"),
        ("x" * 5000 + ".csv", "cannot be looked at"),
        ("\x00.csv", "does not exist"),
    ]:
        with pytest.raises(UserError, match=message):
            read_rows(tmp_path / name)
    with pytest.raises(UserError, match="home folder that does not exist"):
        read_rows("~nobody-of-this-name/rows.csv")
    (tmp_path / "rows.csv").write_text("a\n1\n")

    def refuse(*arguments: object, **options: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"rows\.csv cannot be read \(Permission denied\)"):
        read_rows(tmp_path / "rows.csv")
