"""What was noticed while preparing the data and did not stop the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from data.text import Encoded

SHOWN = 20  # indices kept per split: enough to look at, and metrics.json stays small


class PreparationReport:
    """Counts and first indices of rows worth knowing about.

    Names: `empty_field` (an empty field inside a non-empty example), `cut_text` (cut at max_length), `cut_prompt` (cut
    so far that text outside the cuttable column was lost as well), `duplicate_text` (the same full text occurred
    before, in this split or an earlier one).
    """

    def __init__(self) -> None:
        self._counts = dict.fromkeys(("empty_field", "cut_text", "cut_prompt", "duplicate_text"), 0)
        self._indices: dict[str, dict[str, list[int]]] = {name: {} for name in self._counts}
        self._seen: set[bytes] = set()

    def add(self, split: str, index: int, fields: Sequence[str], text: str, tokens: Encoded) -> None:
        """Look at one prepared example."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        found = {
            "empty_field": any(not field.strip() for field in fields),
            "cut_text": tokens.cut,
            "cut_prompt": tokens.cut_prompt,
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
