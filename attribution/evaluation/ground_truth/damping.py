"""Choice of a damping: of a grid the one whose scores agree best with models trained on random halves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.evaluation.ground_truth.correlation import spearman
from twinlens.attribution.evaluation.train_ranking import random_ranking, share_of_rows

GRID = (0.01, 0.1, 1.0, 10.0)
"""Below, single directions decide; above, influence is gradient similarity in all but name, which is cheaper."""
GRID_BY_STEPS = (100.0, 1e3, 1e4, 1e5)
"""The same for solves by steps over whole layers, of whose directions the train rows span few; as many as `GRID`."""
HALVES = 20
"""Fits: dampings are compared on the same ones, so that few tell them apart."""
SEEDS = 2
"""Half of the fits begin as the explained model does, half with other parameters: the first alone favour more damping,
as a model with the same beginning has learnt much the same without any row."""
FIRST_DRAW = 1_000_000
"""Of the halves: none of those that `lds` reports on, unless its `first_draw` is set there."""
EXAMPLES = 200
"""Explained examples of the held-out split at most."""
FEWEST = 10
"""Examples that the held-out split has to have."""


@dataclass(frozen=True)
class DampingChoice:
    """The chosen damping, and what it was chosen among.

    Attributes:
        damping: of the best agreement; of equal ones the smallest.
        agreement: damping → mean over examples and seeds of the fits of Spearman's correlation over halves.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.damping import DampingChoice
        >>> measured = torch.tensor([[0.1, 0.4, 0.2, 0.3]])  # [examples, halves], of two seeds in turn
        >>> choice = DampingChoice.of({0.1: -measured, 1.0: measured + measured.square()}, measured)
        >>> choice.damping
        1.0
        >>> choice.told(examples=1, split="validation")
        'chosen by LDS over 20 random halves on 1 validation examples: 0.1: -1.000, 1: 1.000'
    """

    damping: float
    agreement: Mapping[float, float]

    @staticmethod
    def of(predicted: Mapping[float, Tensor], measured: Tensor) -> DampingChoice:
        """The best of some dampings.

        Args:
            predicted: damping → Σ of the scores of every half's rows, [examples, halves].
            measured: φ under models trained on these halves, their seeds in turn, [examples, halves].
        """
        agreement = {
            damping: sum(
                float(spearman(sums[:, seed::SEEDS], measured[:, seed::SEEDS]).mean()) / SEEDS for seed in range(SEEDS)
            )
            for damping, sums in predicted.items()
        }
        return DampingChoice(max(sorted(agreement), key=lambda damping: agreement[damping]), agreement)

    def told(self, examples: int, split: str) -> str:
        """In words, for `method.yaml`."""
        each = ", ".join(f"{damping:g}: {value:.3f}" for damping, value in self.agreement.items())
        return f"chosen by LDS over {HALVES} random halves on {examples} {split} examples: {each}"


def halves_of(n_train: int) -> list[Tensor]:
    """Train rows of every half that dampings are chosen on."""
    size = share_of_rows(n_train, 50)
    return [random_ranking(n_train, FIRST_DRAW + draw)[:size] for draw in range(HALVES)]


def held_out(n_examples: int) -> Tensor:
    """Rows of the held-out split that dampings are chosen on, rising: all, or random ones of many."""
    if n_examples <= EXAMPLES:
        return torch.arange(n_examples)
    return random_ranking(n_examples, seed=0)[:EXAMPLES].sort().values
