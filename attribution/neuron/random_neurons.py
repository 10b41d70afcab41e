"""Random neurons: the control that every neuron method has to beat. Carries no sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from twinlens.attribution.counter_random import uniform
from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.protocol import NeuronMethod
from twinlens.attribution.neuron.ranking import NeuronScores, rank_neurons
from twinlens.attribution.protocols import Batch, NeuronModel


class RandomNeurons(NeuronMethod):
    """A random order of all neurons for each example, without replacement.

    The score is a function of (seed, example, neuron) and of nothing else, uniform on [0, 1).

    Args:
        seeds: one ranking per seed; evaluations average over them. `for_seed` gives the method of one seed.
        top_k: neurons kept per example.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.random_neurons import RandomNeurons
        >>> method = RandomNeurons(seeds=[0, 1], top_k=3).for_seed(0)
        >>> found = method.attribute(ExampleNeuronModel(), example_batch(), BUDGET)
        >>> found.unit.shape, bool((found.score >= 0).all() and (found.score < 1).all())
        (torch.Size([2, 3]), True)
    """

    is_control: ClassVar[bool] = True
    explains = None
    reads_text = False
    sign = "none: random"
    unit = "uniform on [0, 1)"

    def __init__(self, seeds: Sequence[int] = (0, 1, 2), top_k: int = 100) -> None:
        self.seeds: list[int] = [int(seed) for seed in seeds]
        self.top_k = top_k

    def for_seed(self, seed: int | None) -> RandomNeurons:
        """The method with a single seed, which can attribute."""
        return self if seed is None else RandomNeurons([seed], self.top_k)

    def need(self, sizes: EngineSizes) -> Need:
        """Hashes and ranking."""

        def drawn(columns: int) -> int:
            return sizes.footprint.random_ranking()

        return Need(drawn, drawn)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float:
        """Hashes and ranking, roughly."""
        return 50.0 * sizes.footprint.n_layers * sizes.footprint.n_neurons * len(self.seeds)

    def describe(self, model: NeuronModel) -> dict[str, object]:
        """Seeds, sign and unit."""
        return {
            "method": "random neurons",
            "seeds": self.seeds,
            "top_k": self.top_k,
            "unit": self.unit,
            "sign": self.sign,
        }

    def attribute(self, model: NeuronModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """`top_k` distinct neurons per example, drawn for the only seed.

        Raises:
            ValueError: if the method still has several seeds.
        """
        if len(self.seeds) != 1:
            raise ValueError(f"attribute takes one seed, not {self.seeds}: call for_seed first.")
        count = model.n_layers * model.n_neurons
        scores = uniform(self.seeds[0], batch["index"], torch.arange(count, device=batch["index"].device))
        return rank_neurons(scores.unflatten(1, (model.n_layers, model.n_neurons)), self.top_k)
