"""Application of a tokenizer to texts: what its library raises for rules that contradict each other is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twinlens.attribution.errors import UserError


def tokenised(tokenizer: Any, texts: str | Sequence[str], **options: Any) -> Any:
    """`tokenizer(texts, **options)`.

    Raises:
        UserError: the tokenizer's own description names tokens that it does not have, or fails otherwise.
    """
    try:
        return tokenizer(texts, **options)
    except (UserError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a library in Rust: plain exceptions, and panics, which are no ordinary errors
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise UserError(
            f"The tokenizer cannot read texts ({reason}); "
            "expected one whose description (tokenizer.json) has all tokens that its rules name: set "
            "model.tokenizer_path to the tokenizer that the model was trained with."
        ) from error
