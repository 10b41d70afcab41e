"""Name of a dataset in results and folders, when options make another dataset of it."""

from __future__ import annotations

SPLIT_VALIDATION = "-split-validation"


def full_name(name: str, split_validation: bool = False, test: str | None = None) -> str:
    """The name in results: `mnli`, `mnli-split-validation`, `mnli/hans`, `mnli-split-validation/hans`.

    Args:
        name: of the dataset as published.
        split_validation: train, validation and test were all cut out of its validation set.
        test: the challenge set that stands for its test split.
    """
    return name + (SPLIT_VALIDATION if split_validation else "") + (f"/{test}" if test else "")
