"""Inputs of the examples in docstrings: a batch of two short texts, and the head inputs of two small splits."""

from __future__ import annotations

import torch
from torch import nn

from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.protocols import Batch

BUDGET = 2**30
"""A memory budget that holds every example, in bytes."""


def example_batch() -> Batch:
    """Two texts of four tokens each, labelled 1: what both models of this package predict.

    Example:
        >>> from twinlens.attribution.example_models import example_batch
        >>> example_batch()["input_ids"].shape
        torch.Size([2, 4])
    """
    return {
        "index": torch.arange(2),
        "input_ids": torch.tensor([[5, 1, 2, 0], [3, 5, 1, 0]]),
        "attention_mask": torch.ones(2, 4, dtype=torch.int64),
        "labels": torch.tensor([1, 1]),
    }


def example_head_inputs() -> tuple[HeadInputs, HeadInputs]:
    """Four train examples and two tests of a linear head with two classes: features [examples, 2] are the logits.

    Train examples 0 and 1 are of class 0, 2 and 3 of class 1; example 1 is labelled wrongly. Test 0 is of class 0, test
    1 of class 1.

    Example:
        >>> from twinlens.attribution.example_models import example_head_inputs
        >>> train, test = example_head_inputs()
        >>> len(train), len(test), train.labels.tolist()
        (4, 2, [0, 1, 1, 1])
    """
    head = nn.Linear(2, 2, bias=False)
    nn.init.eye_(head.weight)
    train = torch.tensor([[2.0, 0.0], [1.0, -1.0], [0.0, 2.0], [-1.0, 1.0]])
    test = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return HeadInputs(train, torch.tensor([0, 1, 1, 1]), head), HeadInputs(test, torch.tensor([0, 1]), head)
