"""Gradient similarity of all test × train pairs: factored and streamed, or with per-example gradients by autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attribution.base import HeadInputs
from attribution.instance.gradsim import GradientSimilarity
from attribution.instance.stream import stream_scores
from benchmarks.pairs import Timed, timed

MEMORY_BUDGET = 4 * 2**30
"""The default of conf/train.yaml."""


@dataclass(frozen=True)
class Splits:
    """Random features and labels of two splits under one linear head."""

    train: HeadInputs
    test: HeadInputs
    top_k: int


def build_splits(n_train: int, n_test: int, hidden: int, n_classes: int, top_k: int, seed: int = 0) -> Splits:
    """Features of unit variance and a head whose scores are of order one."""
    torch.manual_seed(seed)
    head = nn.Linear(hidden, n_classes)
    nn.init.normal_(head.weight, std=hidden**-0.5)

    def split(size: int) -> HeadInputs:
        return HeadInputs(torch.randn(size, hidden), torch.randint(0, n_classes, (size,)), head)

    return Splits(split(n_train), split(n_test), top_k)


def ours(splits: Splits) -> Timed[Tensor]:
    """Best scores of each test, [tests, top_k], best first."""

    def run() -> Tensor:
        scorer = GradientSimilarity(top_k=splits.top_k).prepare(splits.train, MEMORY_BUDGET)
        index = torch.arange(len(splits.test))
        return stream_scores(scorer, splits.test, index, splits.top_k, MEMORY_BUDGET)[0].top_score

    return timed(run)


def autograd_loop(splits: Splits) -> Timed[Tensor]:
    """The same with one backward per example, all gradients kept, and one matrix product in float64."""

    def run() -> Tensor:
        train, test = gradients(splits.train), gradients(splits.test)
        return (test @ train.T).topk(splits.top_k, dim=1).values

    return timed(run)


def gradients(inputs: HeadInputs) -> Tensor:
    """Loss gradient of every example, [examples, parameters], float64."""
    rows = []
    for feature, label in zip(inputs.features, inputs.labels, strict=True):
        loss = nn.functional.cross_entropy(inputs.head(feature), label)
        parts = torch.autograd.grad(loss, list(inputs.head.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows).double()


def relative_difference(scores: Tensor, reference: Tensor) -> float:
    """Largest difference of the best scores relative to the best of their test, both [tests, top_k]."""
    return float(((scores - reference).abs().amax(1) / reference.abs().amax(1)).max())
