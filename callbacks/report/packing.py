"""Packing of a page's data: a JSON header and typed columns in one compressed block of text."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

_ALIGNED = 8
"""Bytes at whose multiples a column begins, as typed arrays of a browser ask."""
_TYPES = (("i8", np.int8), ("i16", np.int16), ("i32", np.int32))


class Packing:
    """Columns of numbers, laid behind one another; the header refers to each by its place.

    A column is `{"t": type, "o": first byte, "n": numbers}` with little-endian types `i8`, `i16`, `i32` and `f32`.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def whole(self, values: Any) -> dict[str, Any]:
        """A column of whole numbers, in the smallest type that holds them, [numbers]."""
        array = np.asarray(values, dtype=np.int64).ravel()
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        for name, kind in _TYPES:
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return self._added(name, array.astype(kind))
        raise ValueError(f"{high if high > 0 else low} does not fit into 32 bits")

    def real(self, values: Any) -> dict[str, Any]:
        """A column of numbers in single precision, NaN for none, [numbers]."""
        return self._added("f32", np.asarray(values, dtype=np.float32).ravel())

    def words(self, values: Iterable[str]) -> dict[str, Any]:
        """A column of texts that recur: each once, and a column of their places."""
        places: dict[Hashable, int] = {}
        at = [places.setdefault(value, len(places)) for value in values]
        return {"words": list(places), "at": self.whole(at)}

    def text(self, header: Any) -> str:
        """All of it as base64 of gzip: length of the header, header, columns."""
        head = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
        head += b" " * (-(4 + len(head)) % _ALIGNED)
        block = b"".join([len(head).to_bytes(4, "little"), head, *self._parts])
        return packed(block)

    def _added(self, name: str, array: np.ndarray) -> dict[str, Any]:
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        place = {"t": name, "o": self._size, "n": int(array.size)}
        self._parts.append(data + bytes(-len(data) % _ALIGNED))
        self._size += len(self._parts[-1])
        return place


def packed(block: bytes) -> str:
    """Bytes as base64 of gzip, the same text for the same bytes."""
    return base64.b64encode(gzip.compress(block, 6, mtime=0)).decode("ascii")
