"""Random rankings of the train split: the control that every instance method has to beat. Carries no loss sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.counter_random import uniform
from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod


class RandomInstances(InstanceMethod):
    """A random order of all train examples for each test example, without replacement.

    The score is a hash of (seed, test row, train row), so that an order depends on nothing else: not on batch, block,
    device or sharding. Scores are uniform on [0, 1).

    Args:
        seeds: one ranking per seed; evaluations average over them. `for_seed` gives the method of one seed.
        top_k: length of the stored lists.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.random_instances import RandomInstances
        >>> train, test = example_head_inputs()
        >>> scorer = RandomInstances(seeds=[0, 1]).for_seed(1).prepare(train, BUDGET)
        >>> scores = scorer.scores(scorer.query(test, torch.arange(2)), 0, 4)
        >>> scores.shape, bool((scores == scorer.scores(torch.arange(2), 0, 4)).all())  # drawn again, the same
        (torch.Size([2, 4]), True)
    """

    is_control: ClassVar[bool] = True
    explains = None
    sign = "none: carries no loss sign"
    unit = "uniform on [0, 1)"

    def __init__(self, seeds: Sequence[int] = (0, 1, 2), top_k: int = 100) -> None:
        self.seeds: list[int] = [int(seed) for seed in seeds]
        self.top_k = top_k

    def for_seed(self, seed: int | None) -> RandomInstances:
        """The method with a single seed, which can be prepared."""
        return self if seed is None else RandomInstances([seed], self.top_k)

    def cost(self, sizes: PassSizes) -> InstanceCost:
        """Blocks of hashes."""
        return InstanceCost(sizes.streamed(64, 64), 50.0 * sizes.n_train * sizes.n_test)

    def prepare(self, train: HeadInputs, memory_budget: int) -> RandomScorer:
        """A scorer for the only seed.

        Raises:
            ValueError: if the method still has several seeds.
        """
        if len(self.seeds) != 1:
            raise ValueError(f"prepare takes one seed, not {self.seeds}: call for_seed first.")
        return RandomScorer(self.seeds[0], len(train), train.features.device)


@dataclass(frozen=True)
class RandomScorer:
    """`InstanceScorer` of `RandomInstances`.

    Attributes:
        seed: of the ranking.
        n_train: number of train examples.
        device: of the scores.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.random_instances import RandomScorer
        >>> scorer = RandomScorer(seed=0, n_train=100, device=torch.device("cpu"))
        >>> whole, part = scorer.scores(torch.tensor([3]), 0, 100), scorer.scores(torch.tensor([3]), 40, 60)
        >>> bool((whole[:, 40:60] == part).all())  # whatever the blocks
        True
    """

    seed: int
    n_train: int
    device: torch.device
    bytes_per_query: int = field(default=64, init=False)
    bytes_per_row: int = field(default=64, init=False)
    bytes_held: int = field(default=0, init=False)

    def describe(self) -> dict[str, object]:
        """Seed, sign and unit."""
        return {"seed": self.seed, "sign": RandomInstances.sign, "unit": RandomInstances.unit}

    def query(self, test: HeadInputs, index: Tensor) -> Tensor:
        """The tests' rows on the train split's device, [tests]."""
        return index.to(self.device, torch.int64)

    def scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        """[tests, stop − start], float32."""
        return uniform(self.seed, query, torch.arange(start, stop, device=self.device))

    def self_influence(self) -> None:
        """None: no train example has a random influence on itself."""
        return None
