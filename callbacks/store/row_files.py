"""Rows of numbers on disk that several processes fill in any order, each row with a check word of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinlens.callbacks.store.files import write_json

MANIFEST = "rows.json"
SUFFIX = ".rows"
"""Of the arrays: raw numbers, little-endian, row-major."""
CHECKS = "rows.checks"
"""One uint32 per row: the CRC-32 of whose row it is and of its bytes in all arrays, 0 while it is not written."""
ROWS_CHECKED_AT_ONCE = 4096
SHOWN = 8


class RowFiles:
    """The arrays of a folder.

    Args:
        folder: where they lie; has a manifest, see `create`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.n_rows = int(self.manifest["rows"])
        self.widths = [int(width) for width in self.manifest["widths"]]
        self.dtypes = [
            np.dtype(name).newbyteorder("<") for name in self.manifest.get("dtypes", ["float32"] * len(self.widths))
        ]
        self.owner = str(self.manifest.get("fingerprint", ""))

    @staticmethod
    def create(
        folder: Path, n_rows: int, widths: Sequence[int], about: dict[str, Any], dtypes: Sequence[str] | None = None
    ) -> RowFiles:
        """Make room for the rows, or keep what is there; the manifest, written last, says that there is room.

        Args:
            folder: where the arrays are to lie.
            n_rows: number of rows.
            widths: numbers of a row in each array.
            about: what else the manifest says; by its `fingerprint` rows of another entry are told from its own.
            dtypes: numpy's names of the arrays' types; None: float32 for all.
        """
        names = ["float32"] * len(widths) if dtypes is None else list(dtypes)
        each = [np.dtype(name).itemsize * width for name, width in zip(names, widths, strict=True)]
        sizes = {CHECKS: 4 * n_rows} | {_name(group): n_rows * size for group, size in enumerate(each)}
        for name, size in sizes.items():
            number = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                os.ftruncate(number, size)
            finally:
                os.close(number)
        write_json(folder / MANIFEST, {**about, "rows": n_rows, "widths": list(widths), "dtypes": names})
        return RowFiles(folder)

    def write(self, rows: Sequence[int], values: Sequence[Tensor]) -> None:
        """Write rows in place, their check words last; a row that is being replaced counts as not written meanwhile.

        Args:
            rows: their numbers.
            values: of each array, [rows, width].
        """
        arrays = [
            np.ascontiguousarray(part.detach().cpu().numpy(), dtype=dtype)
            for part, dtype in zip(values, self.dtypes, strict=True)
        ]
        checks = os.open(self.folder / CHECKS, os.O_RDWR)
        files = [os.open(self.folder / _name(group), os.O_RDWR) for group in range(len(arrays))]
        try:
            for place, row in enumerate(rows):
                os.pwrite(checks, bytes(4), 4 * row)
                for file, array in zip(files, arrays, strict=True):
                    content = array[place].tobytes()
                    _write_all(file, content, row * len(content))
                check = self._check(row, (array[place] for array in arrays))
                os.pwrite(checks, check.to_bytes(4, "little"), 4 * row)
        finally:
            for number in (checks, *files):
                os.close(number)

    def map(self) -> tuple[Tensor, ...]:
        """The arrays, memory-mapped, [rows, width] each; what is written to them stays in this process."""
        return tuple(torch.from_numpy(self._mapped(group)) for group in range(len(self.widths)))

    def written(self) -> np.ndarray:
        """Which rows have a check word, [rows], bool."""
        return self._checks() != 0

    def damaged(self, rows: np.ndarray | None = None) -> list[int]:
        """Rows whose content does not fit their check word, or that have none.

        Args:
            rows: numbers of those to look at, ascending; None: all.
        """
        checks, arrays = self._checks(), [self._mapped(group) for group in range(len(self.widths))]
        looked_at = np.arange(self.n_rows) if rows is None else rows
        found = []
        for start in range(0, len(looked_at), ROWS_CHECKED_AT_ONCE):
            for row in looked_at[start : start + ROWS_CHECKED_AT_ONCE].tolist():
                if checks[row] == 0 or checks[row] != self._check(row, (array[row] for array in arrays)):
                    found.append(row)
        return found

    def adopt(self, folder: Path) -> None:
        """Put these arrays into another folder too, without a copy where the file system can."""
        for file in [self.folder / CHECKS, *self.folder.glob(f"*{SUFFIX}")]:
            if not file.is_file():
                continue  # what is not there is computed again, like rows without a check word
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copy2(file, folder / file.name)

    def _check(self, row: int, parts: Iterable[np.ndarray]) -> int:
        """CRC-32 of a row's owner, number and bytes; 1 stands for 0, which says that there is none."""
        word = zlib.crc32(f"{self.owner}:{row}".encode())
        for part in parts:
            word = zlib.crc32(part.data, word)
        return word or 1

    def _checks(self) -> np.ndarray:
        return np.fromfile(self.folder / CHECKS, dtype="<u4")

    def _mapped(self, group: int) -> np.ndarray:
        assert sys.byteorder == "little", "arrays are mapped as they lie on disk"
        # copy on write: pages are shared with the page cache until somebody writes to them, which nobody does
        return np.memmap(self.folder / _name(group), self.dtypes[group], "c", shape=(self.n_rows, self.widths[group]))


def damage_of_rows(folder: Path) -> str:
    """Which rows of a folder are damaged, in words; empty where none is."""
    try:
        bad = RowFiles(folder).damaged()
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return f"{MANIFEST} or the arrays it names cannot be read"
    return "" if not bad else f"{listed(bad)} of its arrays changed"


def listed(rows: Sequence[int]) -> str:
    """For example `rows 3, 17`."""
    more = " …" if len(rows) > SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:SHOWN]))}{more}"


def _name(group: int) -> str:
    return f"group_{group:03d}{SUFFIX}"


def _write_all(file: int, content: bytes, offset: int) -> None:
    written = 0
    while written < len(content):  # a write may stop short, at a full disk with an error only the next time
        written += os.pwrite(file, content[written:], offset + written)
