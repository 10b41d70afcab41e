"""The error that a user can mend, and the check that numbers are finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is refused before any library is loaded is this error too
    from torch import Tensor


class UserError(Exception):
    """Something the user can mend: what was wrong, where, what was expected, what to do, in one sentence.

    Caught once, in train.py: printed without a traceback, exit code 2.

    Example:
        >>> from twinlens.attribution.errors import UserError
        >>> raise UserError("top_k=0 keeps no example; expected at least 1: set method.gradsim.top_k=100.")
        Traceback (most recent call last):
            ...
        twinlens.attribution.errors.UserError: top_k=0 keeps no example; ...
    """


def require_finite(values: Tensor, what: str, index: Tensor) -> None:
    """Refuse NaN and infinite values, naming the examples they belong to.

    Args:
        values: [examples, ...].
        what: name of the quantity for the message.
        index: [examples], row of each example in its split.

    Raises:
        UserError: with the first ten indices.

    Example:
        >>> import torch
        >>> from twinlens.attribution.errors import require_finite
        >>> require_finite(torch.tensor([[0.5, 1.0], [2.0, 3.0]]), "A score", index=torch.tensor([7, 9]))
        >>> require_finite(torch.tensor([[0.5, 1.0], [torch.nan, 3.0]]), "A score", index=torch.tensor([7, 9]))
        Traceback (most recent call last):
            ...
        twinlens.attribution.errors.UserError: A score is NaN or infinite for 1 example(s) (index 9); ...
    """
    if math.isfinite(float(values.sum())):  # one NaN or infinity would be in the sum
        return
    finite = values.isfinite().flatten(1).all(1) if values.dim() > 1 else values.isfinite()
    if not bool(finite.all()):
        bad = index[~finite.to(index.device)].tolist()
        shown = ", ".join(map(str, bad[:10])) + (" …" if len(bad) > 10 else "")
        raise UserError(
            f"{what} is NaN or infinite for {len(bad)} example(s) (index {shown}); expected finite numbers: "
            "lower model.learning_rate or use trainer.precision=32."
        )
