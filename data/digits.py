"""Handwritten digits that scikit-learn ships: images of 8 × 8 pixels from 0 to 16, written out as numbers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from twinlens.attribution.errors import UserError
from twinlens.data.row_choice import SPLITS
from twinlens.data.text_data_module import SourceRows, TextDataModule

COLUMN = "pixels"
TEMPLATES = {"reference": f"{{{COLUMN}}}"}


class DigitsDataModule(TextDataModule):
    """1797 images of ten digits, row by row, as texts of 64 numbers.

    Args:
        n_train, n_validation, n_test: rows of the splits, of a permutation that `split_seed` draws.
        options: see `TextDataModule`.
    """

    papers: ClassVar[tuple[str, ...]] = ("pedregosa2011scikit",)
    default_max_length = 64

    def __init__(
        self,
        name: str = "digits",
        path: None = None,
        n_train: int = 1000,
        n_validation: int = 297,
        n_test: int = 500,
        **options: Any,
    ) -> None:
        super().__init__(name, path, **options)
        self.label_names = [str(digit) for digit in range(10)]
        self.text_columns = [COLUMN]
        self.sizes = dict(zip(SPLITS, (n_train, n_validation, n_test), strict=True))

    def templates(self) -> dict[str, str]:
        """The numbers alone."""
        return TEMPLATES

    def load_splits(self) -> dict[str, SourceRows]:
        """See `TextDataModule.load_splits`.

        Raises:
            UserError: scikit-learn is not there, or more rows are asked for than there are.
        """
        images, labels = _digits()
        if min(self.sizes.values()) < 1 or sum(self.sizes.values()) > len(labels):
            raise UserError(
                f"data=digits has the sizes {'/'.join(map(str, self.sizes.values()))}; expected at least one row each, "
                f"and together at most {len(labels)}: change data.n_train, data.n_validation or data.n_test."
            )
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.split_seed)).tolist()
        splits, start = {}, 0
        for split, size in self.sizes.items():
            rows = order[start : start + size]
            start += size
            texts = [" ".join(str(int(value)) for value in images[row]) for row in rows]
            splits[split] = SourceRows(rows, {COLUMN: texts}, [int(labels[row]) for row in rows])
        return splits


def _digits() -> tuple[Any, Any]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError(
            "data=digits reads the digits that scikit-learn ships, and scikit-learn is not installed; expected it: "
            "run pip install 'twinlens[digits]', or pip install scikit-learn."
        ) from error
    return load_digits(return_X_y=True)
