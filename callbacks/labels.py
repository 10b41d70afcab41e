"""Do a trained classifier and the data speak of the same classes?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attribution.base import UserError


def require_matching_labels(checkpoint: Sequence[str], data: Sequence[str], path: str) -> None:
    """Refuse a classifier (fit=false) whose classes are not those of the data, in the same order.

    A checkpoint that never named its classes (LABEL_0, LABEL_1 …) is taken at its number of classes.

    Raises:
        UserError: naming both lists.
    """
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in checkpoint)
    if list(checkpoint) == list(data) or (unnamed and len(checkpoint) == len(data)):
        return
    hint = (
        "give them in the checkpoint's order with data.label_names"
        if sorted(checkpoint) == sorted(data)
        else "choose the data the classifier was trained for, or train it on these (fit=true)"
    )
    raise UserError(
        f"the classifier in model.path={path} has the labels {_listed(checkpoint)}, but the data have "
        f"{_listed(data)}; expected the same labels in the same order: {hint}."
    )


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(names) + "]"
