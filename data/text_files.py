"""Text files line by line within bounds, packed or not: damage is told with file and line, never with a traceback."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from twinlens.attribution.errors import UserError

MOST_BYTES = 2**30
"""Of one file, unpacked."""
MOST_IN_LINE = 16 * 2**20
"""Characters of one line."""
PACKED = ".gz"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
OTHER_FILES = {
    b"\x1f\x8b": ("packed with gzip", "add .gz to its name"),
    b"PK\x03\x04": ("a zip archive, as Excel files are", "unpack it, or save the table as CSV"),
    b"PAR1": ("a Parquet file", "call it .parquet"),
}
"""First bytes → what the file is, and what to do."""


@dataclass(frozen=True)
class DataFile:
    """A file and how it is read.

    Attributes:
        path: where it lies.
        format: the suffix that names the format, without that of packing.
    """

    path: Path
    format: str

    @property
    def packed(self) -> bool:
        """Whether it is packed with gzip."""
        return self.path.suffix.lower() == PACKED

    def open(self) -> BinaryIO:
        """Its bytes, unpacked."""
        return gzip.open(self.path, "rb") if self.packed else self.path.open("rb")  # type: ignore[return-value]


@contextmanager
def damage_told(file: DataFile) -> Iterator[None]:
    """Turn what Python says of a file that cannot be opened, unpacked or decoded into one sentence."""
    try:
        yield
    except UnicodeDecodeError:
        raise _not_utf8(file) from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{file.path} cannot be unpacked ({error}), expected a whole file packed with gzip: copy it again, or take "
            f"the ending {PACKED} away if it is not packed."
        ) from None
    except OSError as error:
        raise UserError(
            f"{file.path} cannot be read ({error.strerror or error}), expected a readable file: check its name and "
            "permissions."
        ) from None


def text_lines(file: DataFile, newline: str, most: int = MOST_BYTES, most_in_line: int = MOST_IN_LINE) -> Iterator[str]:
    """The lines of a UTF-8 file, ends included, a byte order mark dropped.

    Args:
        file: to read.
        newline: as of `open`: "" ends lines at any line end, "\\n" at that one alone.
        most: characters of the whole file.
        most_in_line: characters of one line.

    Raises:
        UserError: unreadable, no UTF-8, or beyond the bounds.
    """
    with damage_told(file), file.open() as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline)
        number = total = 0
        while line := text.readline(most_in_line + 1):
            number += 1
            total += len(line)
            if total > most:
                raise UserError(
                    f"{file.path} holds more than {most} characters, expected fewer: divide it, or write it with one "
                    "row in each line as .jsonl and set data.limit."
                )
            if len(line) > most_in_line:
                raise UserError(
                    f"{file.path}:{number} is longer than {most_in_line} characters, expected one row in a line: cut "
                    "its texts, or check that this is the right file."
                )
            yield line


def whole_text_rows(file: DataFile, notes: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The one row of a plain text file: all of it, as the column `text`.

    Args:
        file: to read.
        notes: not used, since there is nothing to guess.
    """
    yield "", {"text": "".join(text_lines(file, ""))}


def whole_bytes(file: DataFile) -> bytes:
    """All bytes of a file, unpacked.

    Raises:
        UserError: unreadable or too large.
    """
    with damage_told(file), file.open() as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{file.path} unpacks to more than {MOST_BYTES} bytes, expected fewer: divide it.")
    return content


def _not_utf8(file: DataFile) -> UserError:
    """Where the first byte stands that is not UTF-8."""
    offset = number = 0
    with file.open() as stream:
        start = stream.read(4)
    for mark, (kind, advice) in OTHER_FILES.items():
        if start.startswith(mark):
            return UserError(f"The data file {file.path} is {kind}, expected the text that its name says: {advice}.")
    likely = "utf-16" if start[:2] in UTF_16 else "latin1"
    with suppress(EOFError, OSError, zlib.error), file.open() as stream:  # packed, it may be cut off behind that byte
        for line in stream:
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                offset += error.start
                break
            offset += len(line)
    return UserError(
        f"The data file {file.path} is not UTF-8 (byte {offset}) in line {number}, expected UTF-8 text: convert it, "
        f"for instance with iconv -f {likely} -t utf-8 if that is what it was written in."
    )
