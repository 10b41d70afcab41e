"""Remarks on the data, noticed while preparing them, that did not stop the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from twinlens.data.templates import Encoded

SHOWN = 20  # indices kept per split: enough to look at, and metrics.json stays small
MOST_SHOWN = 80  # characters of a value from a file within a message


class Notes:
    """What was done while reading, one sentence each, for stdout and the report.

    Attributes:
        lines: the sentences, each once, in the order they came up.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a sentence; what a terminal could take for a command is written as an escape."""
        shown = "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in line)
        if shown not in self.lines:
            self.lines.append(shown)


def quoted(value: Any) -> str:
    """A value from a file as it stands in a message: quoted, on one line, cut where it is long."""
    shown = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]} …"


def listed(values: Sequence[Any], most: int = SHOWN) -> str:
    """Names in a message, the first ones where there are many."""
    shown = ", ".join(str(value)[:MOST_SHOWN] for value in values[:most])
    return shown + (f" … ({len(values)} in all)" if len(values) > most else "")


class PreparationReport:
    """Counts and first indices of rows worth knowing about.

    Names: `empty_field` (an empty field inside a non-empty example), `cut_text` (cut at max_length), `cut_prompt` (cut
    so far that text outside the cuttable column was lost as well), `duplicate_text` (the same full text occurred
    before, in this split or an earlier one), `no_gold_label` (left out; these indices are rows of the source file,
    since such a row has none in the split).
    """

    def __init__(self) -> None:
        names = ("empty_field", "cut_text", "cut_prompt", "duplicate_text", "no_gold_label")
        self._counts = dict.fromkeys(names, 0)
        self._indices: dict[str, dict[str, list[int]]] = {name: {} for name in self._counts}
        self._seen: set[bytes] = set()

    def leave_out(self, split: str, source_rows: Sequence[int]) -> None:
        """Note rows of a split's source file that were left out for want of a gold label."""
        if source_rows:
            self._counts["no_gold_label"] += len(source_rows)
            self._indices["no_gold_label"][split] = list(source_rows[:SHOWN])

    def add(self, split: str, index: int, fields: Sequence[str], text: str, tokens: Sequence[Encoded]) -> None:
        """Look at one prepared example; `text` and `tokens` are those of all its sequences."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        found = {
            "empty_field": any(not field.strip() for field in fields),
            "cut_text": any(sequence.cut for sequence in tokens),
            "cut_prompt": any(sequence.cut_prompt for sequence in tokens),
            "duplicate_text": digest in self._seen,
        }
        self._seen.add(digest)
        for name, is_so in found.items():
            if is_so:
                self._counts[name] += 1
                indices = self._indices[name].setdefault(split, [])
                if len(indices) < SHOWN:
                    indices.append(index)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """name → {"count": int, "indices": {split: the first 20 row numbers}}."""
        return {name: {"count": count, "indices": self._indices[name]} for name, count in self._counts.items()}
