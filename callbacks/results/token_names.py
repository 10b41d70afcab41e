"""Words of a vocabulary's outputs, read with the tokenizer that a run keeps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from twinlens.attribution.errors import UserError

Named = tuple[str, int]
"""A token as it is written, and its number."""


class TokenNames:
    """The tokens of a run by their numbers.

    Args:
        path: the tokenizer's file, which may be absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def readable(self) -> bool:
        """Whether the run keeps a tokenizer.

        Raises:
            UserError: it is damaged.
        """
        return self._tokenizer is not None

    def written(self, number: int) -> str:
        """A token as it is written, `token 5` where the run keeps no tokenizer or it has no such token.

        Raises:
            UserError: the tokenizer is damaged.
        """
        found = self._tokenizer.decode([number], skip_special_tokens=False) if self._tokenizer else ""
        return found or f"token {number}"

    def named(self, numbers: Sequence[int]) -> list[Named]:
        """Tokens with their numbers beside them."""
        return [(self.written(number), number) for number in numbers]

    def said(self, number: int, spelled: str | None = None) -> str:
        """A word with the number beside it, `Paris (token 1124)`, for readers who know neither by heart.

        Args:
            spelled: how the run's files write it; None: as the tokenizer does.
        """
        word = (spelled or self.written(number)).strip() or repr(spelled or self.written(number))
        return word if word == f"token {number}" else f"{word} (token {number})"

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        if not self._path.is_file():
            return None
        try:
            return Tokenizer.from_file(str(self._path))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(
                f"{self._path} cannot be read ({error}); expected a tokenizer: make it again with overwrite=true."
            ) from None
