"""Versions of the formats that runs and the store are written in, and what a reader does with another one.

A version rises when an older reader would misread a file, not when a column or key is added: readers take what they
know and leave the rest. Files of 0.1.0 carry none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError

FORMAT = "format"
"""The key under which a file carries its version."""
RUN_FORMAT = 1
"""Of a run's folder, results.csv among it; stands in metrics.json."""
METHOD_FORMAT = 1
"""Of method.yaml and the scores beside it."""
MANIFEST_FORMAT = 1
"""Of a store entry's manifest."""
ANATOMY_FORMAT = 1
"""Of what a model was found to be made of."""


def require_known_format(path: Path, content: Mapping[str, Any], known: int) -> None:
    """Refuse a file that a later version has written in a format that this one does not know.

    Args:
        path: the file.
        content: what stands in it.
        known: the newest format of its kind that this code reads; it reads all older ones as well.

    Raises:
        UserError: the file's format is newer, or no whole number.
    """
    found = content.get(FORMAT, 0)
    if isinstance(found, bool) or not isinstance(found, int):
        raise UserError(f"{FORMAT} in {path} is {found!r}; expected a whole number: make it again with overwrite=true.")
    if found > known:
        raise UserError(
            f"{path} has format {found}, and this version of twinlens reads formats up to {known}; expected a file of "
            "this version or an earlier one: update twinlens, or make it again with this version in a new folder."
        )
