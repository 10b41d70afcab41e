"""Seeded data files of every format with one or several faults, for readers that must read them rightly or refuse them.

A try makes a file whose rows are known, changes it (its values, its form or its bytes) and says how a plain reader of
the standard library or Arrow reads it, so that a silent difference is seen.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.faults.fuzzing import Hangs, alarm
from twinlens.attribution.errors import UserError
from twinlens.data.file_readers import read_rows
from twinlens.data.table import TableDataModule

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
TEXTS = (
    "the film was good", "", " ", "a,b", 'He said "yes"', '"Quoted" start', '"all of it"', "tab\there", "two\nlines",
    "carriage\rreturn", "\ud83d", "nul\x00", "Ünïcode 日本 👍", "x\u2028y\x85z", "=1+1", "nan", "None", "0" * 5000,
    "\ufeffmark", "\x1b[2J", "'", '"', '""', "word " * 400, "{claim}", "\\", "²",
)  # fmt: skip
LABELS: tuple[Any, ...] = (
    0, 1, 2, -1, "0", "1", "-1", 0.0, 1.0, -1.0, "0.0", True, False, "true", "True", "yes", "no", None, float("nan"),
    float("inf"), "", "nan", "²", "١", "½", "01", 10**19, "9" * 5000, [1], {"a": 1}, "\ud800", "1e5", -0.0, 1e300,
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one try: `read`, `refused` or a fault, and what was said."""

    kind: str
    said: str


def write_file(folder: Path, seed: int) -> Path:
    """The data file of one try, in `folder`."""
    rng = random.Random(f"data file {seed}")
    suffix = rng.choice(SUFFIXES)
    rows = _rows(rng)
    content = WRITERS[suffix](rng, rows)
    for change in rng.sample(BYTE_CHANGES, rng.choice((0, 0, 0, 1, 2))):
        content = change(rng, content)
    name = f"rows{suffix}"
    if rng.random() < 0.2:
        name += ".gz"
        content = gzip.compress(content, 1, mtime=0)
        if rng.random() < 0.4:
            content = rng.choice(BYTE_CHANGES)(rng, content)
    file = folder / name
    file.write_bytes(content)
    return file


def attempt(folder: Path, seed: int, tokenizer: Any) -> Outcome:
    """Read one file with the reader and, under a table's settings drawn for it, as data of a run."""
    file = write_file(folder, seed)
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    rng = random.Random(f"settings {seed}")
    kind, said = "read", ""
    try:
        with alarm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                rows = read_rows(file)
                if not _same(rows, plainly(file)):
                    return Outcome("silent difference", f"{file.name} of seed {seed}")
            except UserError as error:
                kind, said = "refused", str(error)
            try:
                table = TableDataModule(path=str(file), text=["text"], **_settings(rng))
                table.prepare(tokenizer)
                _check_rows(file, table)
            except UserError as error:
                kind, said = "refused", said or str(error)
    except Hangs:
        return Outcome("hang", f"seed {seed}")
    except AssertionError as error:
        return Outcome("silent difference", f"{error} (seed {seed})")
    except Exception as error:
        return Outcome("traceback", f"{type(error).__name__}: {error} (seed {seed})")
    if {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} != before:
        return Outcome("file outside", f"seed {seed}")
    if kind == "refused" and ("\n" in said or (str(file) not in said and "data=table" not in said)):
        return Outcome("no sentence", f"{said} (seed {seed})")
    return Outcome(kind, said)


def plainly(file: Path) -> list[dict[str, Any]]:
    """The rows as csv, json or Arrow read them, with nothing between."""
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    suffix = next(suffix for suffix in file.suffixes[::-1] if suffix in SUFFIXES)
    if suffix == ".parquet":
        return pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)).read().to_pylist()
    text = content.decode("utf-8-sig")
    if suffix in (".csv", ".tsv"):
        delimiter = "," if suffix == ".csv" else "\t"
        csv.field_size_limit(2**31 - 1)
        try:
            cells = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
        except csv.Error:  # a TSV written without quoting is read all the same
            if suffix == ".csv":
                raise
            cells = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_NONE))
        header, *body = cells or [[]]
        return [dict(zip(header, row, strict=True)) for row in body if row]
    if suffix == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            pass
    return [json.loads(line) for line in text.split("\n") if line.strip()]


# -- rows and settings -------------------------------------------------------------------------------------------------


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    """Rows that a reader may meet: mostly sound, a few values odd."""
    labels = rng.choice(([0, 1], [0, 1, 2], ["yes", "no"], [0.0, 1.0], [True, False], ["0", "1"], [-1, 0, 1]))
    rows = [{"text": f"claim {n} is true", "label": rng.choice(labels)} for n in range(rng.choice((1, 10, 20, 60)))]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        row = rng.choice(rows)
        if rng.random() < 0.5:
            row["text"] = rng.choice(TEXTS)
        else:
            row["label"] = rng.choice(LABELS)
    if rng.random() < 0.2:
        for row in rows:
            row["more"] = rng.choice((1.5, None, "x", [1, 2], {"deep": {"deeper": [None]}}))
    return rows


def _settings(rng: random.Random) -> dict[str, Any]:
    settings: dict[str, Any] = {"label": rng.choice(("label", "label", "label", None))}
    if rng.random() < 0.3:
        splits = ("train", "validation", "test") if settings["label"] else ("test",)
        settings["limit"] = {split: rng.choice((1, 5, None)) for split in splits}
    if rng.random() < 0.2:
        settings["label_names"] = rng.choice((["0", "1"], ["no", "yes"], [-1, 0, 1], [False, True]))
    return settings


def _check_rows(file: Path, table: TableDataModule) -> None:
    """Every row that is used has the text and the label that the file gives it."""
    try:
        source = plainly(file)
    except Exception:  # damaged behind the rows that a limit lets a run read
        return
    for rows in table.splits.values():
        for row in rows:
            given = source[row["source_index"]]
            text = given.get("text")
            text = "" if text is None or text != text else str(text)
            assert row["text"] == text, f"{row['text']!r} is not {text!r}"
            if row["label"] < 0:
                assert table.label is None or _is_no_label(given.get("label")), f"{given} has no label"
            else:
                assert _means(given["label"], table.label_names[row["label"]]), f"{given} is no {row['label']}"


def _is_no_label(value: Any) -> bool:
    return value is None or value != value or str(value).strip().lower() in ("", "nan", "none", "-1", "-1.0")


def _means(value: Any, name: str) -> bool:
    written = str(value).strip()
    if written == name or (name.lower() in ("true", "false") and written.lower() == name.lower()):
        return True
    try:
        return not isinstance(value, bool) and float(written) == float(name)
    except ValueError:
        return False


def _same(left: Any, right: Any) -> bool:
    """Equality for which NaN is NaN and 1, 1.0 and True differ."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right or (left != left and right != right)


# -- writers -----------------------------------------------------------------------------------------------------------


def _delimited(delimiter: str) -> Callable[[random.Random, list[dict[str, Any]]], bytes]:
    def write(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
        stream = io.StringIO(newline="")
        header = list(rows[0])
        if rng.random() < 0.1:
            header = rng.choice(
                ([header[0]] * len(header), ["", *header[1:]], [*header, "label"], [f"\ufeff{header[0]}"])
            )
        end = rng.choice(("\n", "\n", "\r\n", "\r"))
        quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writerow(header)
        writer.writerows(row.values() for row in rows)
        lines = stream.getvalue().split(end)
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            place = rng.randrange(len(lines))
            lines[place] = rng.choice(LINE_CHANGES)(rng, lines[place], delimiter)
        return end.join(lines).encode("utf-8", "surrogatepass")

    return write


LINE_CHANGES: tuple[Callable[[random.Random, str, str], str], ...] = (
    lambda rng, line, mark: line + mark,
    lambda rng, line, mark: line.rpartition(mark)[0],
    lambda rng, line, mark: '"' + line,
    lambda rng, line, mark: line + '"',
    lambda rng, line, mark: line.replace('"', ""),
    lambda rng, line, mark: line.replace(mark, f'"{mark}', 1),
    lambda rng, line, mark: line.replace(mark, f'{mark}"', 1),
    lambda rng, line, mark: "",
    lambda rng, line, mark: line + "\r",
    lambda rng, line, mark: line.replace(" ", "\n", 1),
    lambda rng, line, mark: f"{line}\n{line}",
    lambda rng, line, mark: line.replace(mark, ";"),
)


def _json_lines(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    escaped = rng.random() < 0.5 or any(_half(row) for row in rows)
    lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    for _ in range(rng.choice((0, 0, 1, 2))):
        place = rng.randrange(len(lines))
        lines[place] = rng.choice(OBJECT_CHANGES)(lines[place])
    return rng.choice(("\n", "\n", "\r\n")).join(lines).encode()


def _json_list(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    if rng.random() < 0.3:
        return _json_lines(rng, rows)
    objects = [json.dumps(row) for row in rows]
    for _ in range(rng.choice((0, 0, 1))):
        place = rng.randrange(len(objects))
        objects[place] = rng.choice(OBJECT_CHANGES)(objects[place])
    return ("[" + rng.choice((",", ",\n", ", ")).join(objects) + "]").encode()


def _half(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


OBJECT_CHANGES: tuple[Callable[[str], str], ...] = (
    lambda text: text[:-1] + ', "label": 1}',
    lambda text: text[:-1] + ', "deep": {"a": 1, "a": 2}}',
    lambda text: text.replace('"label": ', '"label": 1' + "0" * 5000 + ', "was": '),
    lambda text: '{"text": ' + "[" * 200_000 + "]" * 200_000 + "}",
    lambda text: '{"text": "a", "label": ' + '{"a":' * 300 + "1" + "}" * 300 + "}",
    lambda text: text[: len(text) // 2],
    lambda text: text + text,
    lambda text: f"[{text}]",
    lambda text: "null",
    lambda text: "NaN",
    lambda text: text.replace("claim", "\\ud83d"),
    lambda text: text.replace("claim", "\\u0000"),
    lambda text: text.replace(":", " :\t"),
    lambda text: text.replace('"label": ', '"label": 1e999, "was": '),
    lambda text: text.replace('"text"', '"\\ud83d"'),
    lambda text: text.replace('"text"', '"Text"'),
    lambda text: "",
)


def _parquet(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    columns: dict[str, Any] = {
        "text": pyarrow.array([row["text"].encode("utf-8", "surrogatepass") for row in rows]).cast(
            pyarrow.string(), safe=False
        )
        if any(_half(row["text"]) for row in rows)
        else pyarrow.array([row["text"] for row in rows], rng.choice((pyarrow.string(), pyarrow.large_string()))),
        "label": _column(rng, [row["label"] for row in rows]),
    }
    if rng.random() < 0.2:
        columns["text"] = columns["text"].dictionary_encode()
    table = pyarrow.table(columns)
    if rng.random() < 0.05:
        table = table.append_column("label", columns["label"])
    pyarrow.parquet.write_table(
        table,
        stream,
        compression=rng.choice(("none", "snappy", "zstd", "gzip")),
        use_dictionary=rng.random() < 0.5,
        write_page_checksum=rng.random() < 0.5,
        row_group_size=rng.choice((1, 7, 1000)),
        store_schema=rng.random() < 0.7,
    )
    return stream.getvalue()


def _column(rng: random.Random, values: list[Any]) -> pyarrow.Array:
    """A column of one of Arrow's types, in or out of Python's range."""
    n = len(values)
    odd: tuple[Callable[[], pyarrow.Array], ...] = (
        lambda: pyarrow.array([2**31 - 1 - k for k in range(n)], pyarrow.int32()).cast(pyarrow.date32()),
        lambda: pyarrow.array([2**62 + k for k in range(n)], pyarrow.int64()).cast(pyarrow.timestamp("us")),
        lambda: pyarrow.array([k * 1001 for k in range(n)], pyarrow.int64()).cast(
            pyarrow.timestamp("ns", "Asia/Nowhere")
        ),
        lambda: pyarrow.array([k % 2 for k in range(n)], pyarrow.int32()).cast(pyarrow.decimal128(30, 5)),
        lambda: pyarrow.array([[k] for k in range(n)]),
        lambda: pyarrow.array([{"a": k} for k in range(n)]),
        lambda: pyarrow.array([b"\xff", *[b"0"] * (n - 1)]),
        lambda: pyarrow.array([None] * n),
        lambda: pyarrow.array([2**62 + k for k in range(n)], pyarrow.int64()).cast(pyarrow.duration("s")),
        lambda: pyarrow.array([k % 2 for k in range(n)], pyarrow.float16()),
    )
    if rng.random() < 0.25:
        return rng.choice(odd)()
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError, TypeError):
        return pyarrow.array([ascii(value) for value in values])


WRITERS: dict[str, Callable[[random.Random, list[dict[str, Any]]], bytes]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _json_list,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _flipped(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut_out(rng: random.Random, content: bytes) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + content[last:]


BYTE_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flipped,
    _flipped,
    _cut_out,
    lambda rng, content: content[: rng.randrange(len(content) + 1)],
    lambda rng, content: b"",
    lambda rng, content: b"\xef\xbb\xbf" + content,
    lambda rng, content: content.decode("utf-8", "replace").encode("utf-16"),
    lambda rng, content: content.decode("utf-8", "replace").encode("latin1", "replace"),
    lambda rng, content: content + b"\xed\xa0\xbd",
    lambda rng, content: content + content,
    lambda rng, content: content.replace(b"a", b"\x00", 1),
    lambda rng, content: content.replace(b"\n", b"\r"),
)
