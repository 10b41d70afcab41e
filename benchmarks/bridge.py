"""NA-Instances (DCNS) of all test × train pairs: products in blocks and streamed, or a double loop over the lists."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.pairs import Timed, timed
from twinlens.attribution.bridge.neuron_instances import NeuronInstances
from twinlens.attribution.bridge.neuron_lists import NeuronLists
from twinlens.attribution.instance.stream import stream_scores

MEMORY_BUDGET = 4 * 2**30
"""The default of conf/train.yaml."""


@dataclass(frozen=True)
class Splits:
    """Neuron lists of two splits of one model; the loop scores the first `n_loop` tests."""

    train: NeuronLists
    test: NeuronLists
    top_k: int
    n_loop: int


def build_splits(n_train: int, n_test: int, length: int, top_k: int, n_loop: int, seed: int = 0) -> Splits:
    """Lists as attribution gives them: neurons whose popularity falls slowly for a few hundred, then steeply.

    The model has OPT-125m's 12 × 3072 neurons. A list holds the neurons with the highest of a popularity that all
    examples share plus noise of the example's own; three of its neurons in four come from the few hundred that stand
    in a tenth of the lists or more. Scores fall along the list like those of integrated gradients.
    """
    generator = torch.Generator().manual_seed(seed)
    n_layers, n_neurons = 12, 3072
    popularity = torch.randn(n_layers * n_neurons, generator=generator) * 1.5

    def split(size: int) -> NeuronLists:
        parts = [
            (popularity + torch.randn(min(500, size - start), len(popularity), generator=generator))
            .topk(length)
            .indices
            for start in range(0, size, 500)
        ]
        address = torch.cat(parts)
        strength = torch.rand(size, 1, generator=generator) * 0.2
        score = strength / torch.arange(1, length + 1) ** 0.8
        return NeuronLists((address // n_neurons).int(), (address % n_neurons).int(), score, n_layers, n_neurons)

    return Splits(split(n_train), split(n_test), top_k, min(n_loop, n_test))


def ours(splits: Splits) -> Timed[Tensor]:
    """Best scores of the tests that the loop scores too, [n_loop, top_k], best first; the clock sees all tests."""

    def run() -> Tensor:
        scorer = NeuronInstances("ig", top_k=splits.top_k).prepare(splits.train, MEMORY_BUDGET)
        index = torch.arange(len(splits.test))
        scores, _ = stream_scores(scorer, splits.test, index, splits.top_k, MEMORY_BUDGET)
        return scores.top_score[: splits.n_loop]

    return timed(run)


def double_loop(splits: Splits) -> Timed[Tensor]:
    """Eq. 1 entry by entry for the first tests, its time scaled up to all of them."""
    train = list(zip(entries(splits.train), splits.train.score.tolist(), strict=True))

    def run() -> Tensor:
        rows = []
        for test in entries(splits.test.rows(0, splits.n_loop)):
            in_test = set(test)
            rows.append([dcns(neurons, scores, in_test) for neurons, scores in train])
        scores = torch.tensor(rows, dtype=torch.float64)
        return scores.topk(min(splits.top_k, scores.shape[1]), dim=1).values

    part = timed(run)
    return Timed(part.seconds * len(splits.test) / splits.n_loop, part.result, [part.seconds])


def dcns(neurons: list[int], scores: list[float], in_test: set[int]) -> float:
    """Eq. 1 of the paper for one pair."""
    pairs = enumerate(zip(neurons, scores, strict=True), start=1)
    return sum((2**score - 1) / math.log2(m + 1) for m, (neuron, score) in pairs if neuron in in_test)


def entries(lists: NeuronLists) -> list[list[int]]:
    """Neuron numbers of each example."""
    return lists.addresses(lists.layer.shape[1]).tolist()


def relative_difference(scores: Tensor, reference: Tensor) -> float:
    """Largest difference of the best scores relative to the best of their test, both [tests, top_k]."""
    return float(((scores - reference).abs().amax(1) / reference.abs().amax(1)).max())
