"""Parquet in small batches: what is damaged, out of range or too large is told with file and row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.compute as compute
import pyarrow.parquet

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, quoted
from twinlens.data.delimited_files import MOST_COLUMNS, MOST_IN_TEXT, Located, refuse_doubled
from twinlens.data.text_files import MOST_BYTES, DataFile, damage_told, whole_bytes

ROWS_AT_ONCE = 1000
MOST_DECODED = 2**30
"""Bytes that a nested column may grow to within one batch: a dictionary stores a long text once for many rows."""


def parquet_rows(file: DataFile, notes: Notes, most: int | None = None) -> Iterator[Located]:
    """Rows of a Parquet file.

    Args:
        file: to read.
        notes: not used, since there is nothing to guess.
        most: refuse more rows than this before any is read; None: do not.
    """
    opened = _opened(file)
    metadata, names = opened.metadata, list(opened.schema_arrow.names)
    if len(names) > MOST_COLUMNS:
        raise UserError(f"{file.path} has {len(names)} columns, expected at most {MOST_COLUMNS}: drop some.")
    refuse_doubled(str(file.path), names, "column")
    if most is not None and metadata.num_rows > most:
        raise too_many_rows(file, most)
    start = total = 0
    for group in range(metadata.num_row_groups):
        if metadata.row_group(group).total_byte_size > MOST_BYTES:
            raise _too_large(file)
        for batch in _batches(file, opened, group, start):
            total += sum(_text_bytes(column) for column in batch.columns)
            if total > MOST_BYTES:
                raise _too_large(file)
            columns = [_values(file, start, name, batch.column(number)) for number, name in enumerate(names)]
            for row in range(batch.num_rows):
                yield f" row {start + row}", {name: column[row] for name, column in zip(names, columns, strict=True)}
            start += batch.num_rows


def too_many_rows(file: DataFile, most: int) -> UserError:
    """The refusal of a file with more rows than fit."""
    return UserError(
        f"{file.path} has more than {most} rows, expected at most that many where all are read: take a part of it, or "
        "name one file per split (data.path={train: FILE, test: FILE}) and set data.limit for each, which then bounds "
        "what is read."
    )


def _opened(file: DataFile) -> pyarrow.parquet.ParquetFile:
    source = pyarrow.BufferReader(whole_bytes(file)) if file.packed else str(file.path)
    with damage_told(file):
        file.open().close()  # a file that may not be read is told as such, not as damaged
    options: dict[str, Any] = {"page_checksum_verification": True, "pre_buffer": False}
    try:
        schema = pyarrow.parquet.ParquetFile(source, **options).schema_arrow
        texts = [field.name for field in schema if _is_text(field.type)]
        # read as a dictionary, a long text that many rows share stays one text
        return pyarrow.parquet.ParquetFile(source, read_dictionary=texts, **options)
    except Exception as error:  # a damaged file makes the library raise nearly anything
        raise _damaged(file, error) from None


def _is_text(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind)


def _keeps_its_size(kind: pyarrow.DataType) -> bool:
    """Whether a batch of such a column is no larger than its rows and what the file holds."""
    return pyarrow.types.is_primitive(kind) or pyarrow.types.is_dictionary(kind) or pyarrow.types.is_null(kind)


def _batches(
    file: DataFile, opened: pyarrow.parquet.ParquetFile, group: int, start: int
) -> Iterator[pyarrow.RecordBatch]:
    try:
        fixed = {field.name for field in opened.schema_arrow if _keeps_its_size(field.type)}
        chunks = [opened.metadata.row_group(group).column(n) for n in range(opened.metadata.num_columns)]
        sizes = [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema not in fixed]
        at_once = min(ROWS_AT_ONCE, max(1, MOST_DECODED // max([1, *sizes])))
        yield from opened.iter_batches(at_once, row_groups=[group], use_threads=False)
    except Exception as error:  # see above; what the consumer raises does not come by here
        raise _damaged(file, error, f"from row {start} on") from None


def _values(file: DataFile, start: int, name: str, column: pyarrow.Array) -> list[Any]:
    """The values of one column of a batch, [rows]."""
    if pyarrow.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        longest = compute.max(_lengths(column)).as_py() or 0
        if longest > 4 * MOST_IN_TEXT:  # bytes; a character has at most four
            row = start + _lengths(column).to_pylist().index(longest)
            raise UserError(
                f"{file.path} row {row} has a text of {longest} bytes in the column {quoted(name)}, expected at most "
                f"{MOST_IN_TEXT} characters: cut it."
            )
    try:
        if not pyarrow.types.is_dictionary(column.type):
            return column.to_pylist()
        # each different value is made once, however many rows share it
        encoded = column.filter(column.is_valid()).unique() if column.null_count else column.unique()
        values = dict(zip(encoded.indices.to_pylist(), encoded.dictionary_decode().to_pylist(), strict=True))
        return [values.get(index) for index in column.indices.to_pylist()]
    except Exception:  # one value that Python has no like of; the row is looked for
        for row in range(len(column)):
            try:
                column[row].as_py()
            except Exception as error:
                raise UserError(
                    f"{file.path} row {start + row} has a value of the type {column.type} in the column "
                    f"{quoted(name)} that cannot be read ({_reason(error)}), expected one within its range: mend that "
                    "row, or write the column as text."
                ) from None
        raise


def _text_bytes(column: pyarrow.Array) -> int:
    """Bytes of all texts of a column of a batch, as if no two rows shared one; other types are small or bounded."""
    if pyarrow.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        return compute.sum(_lengths(column)).as_py() or 0
    return column.nbytes


def _lengths(column: pyarrow.DictionaryArray) -> pyarrow.Array:
    """Bytes of each row's text, [rows]."""
    return compute.take(compute.binary_length(column.dictionary), column.indices)


def _too_large(file: DataFile) -> UserError:
    return UserError(
        f"{file.path} unpacks to more than {MOST_BYTES} bytes, expected fewer: drop columns or take a part of its rows."
    )


def _damaged(file: DataFile, error: Exception, where: str = "") -> UserError:
    if isinstance(error, UserError):
        return error
    what = f"cannot be read {where}" if where else "is no Parquet file"
    return UserError(
        f"{file.path} {what} ({_reason(error)}), expected a sound Parquet file: check that it was copied whole."
    )


def _reason(error: Exception) -> str:
    message = str(error).split(". ")[0].splitlines()
    return message[0].rstrip(".")[:200] if message else type(error).__name__
