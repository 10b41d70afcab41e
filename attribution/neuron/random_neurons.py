"""Random neurons: the control that every neuron method has to beat. Carries no sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.counter_random import uniform
from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.errors import UserError
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.protocol import NeuronMethod
from twinlens.attribution.neuron.ranking import NeuronScores, rank_neurons, rank_sites, with_coefficient
from twinlens.attribution.protocols import Batch, NeuronModel

Site = Literal["ffn", "attn", "both"]


class RandomNeurons(NeuronMethod):
    """A random order of all neurons for each example, without replacement; where there are experts, of those that the
    example's token was sent to.

    The score is a function of (seed, example, neuron) and of nothing else, uniform on [0, 1).

    Args:
        seeds: one ranking per seed; evaluations average over them. `for_seed` gives the method of one seed.
        top_k: neurons kept per example.
        site: `ffn` neurons, `attn` neurons, or `both`; None: those that the run's other methods rank, FFN neurons where
            these are of several sites or there is none. Whatever the site, a neuron has the same score.

    Raises:
        UserError: an unknown site.

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

    def __init__(self, seeds: Sequence[int] = (0, 1, 2), top_k: int = 100, site: Site | None = None) -> None:
        if site not in ("ffn", "attn", "both", None):
            raise UserError(f"unknown site '{site}' of random_neurons; expected ffn, attn, both or null.")
        self.seeds: list[int] = [int(seed) for seed in seeds]
        self.top_k = top_k
        self.site = site

    @property
    def ranks(self) -> str:
        """The sites of its lists."""
        return self.site or "ffn"

    def for_seed(self, seed: int | None) -> RandomNeurons:
        """The method with a single seed, which can attribute."""
        return self if seed is None else RandomNeurons([seed], self.top_k, self.site)

    def among(self, methods: Mapping[str, Any]) -> RandomNeurons:
        """Without a site of its own, the method with the one that the others rank."""
        sites = {other.ranks for other in methods.values() if other.kind == "neuron" and not other.is_control}
        found: Site = sites.pop() if len(sites) == 1 else "ffn"
        return RandomNeurons(self.seeds, self.top_k, self.site or found)

    def need(self, sizes: EngineSizes) -> Need:
        """Hashes and ranking; where there are experts a forward, which says what tokens are sent to."""

        def drawn(columns: int) -> int:
            ranking = sizes.footprint.random_ranking(self.ranks)
            return ranking if sizes.footprint.experts is None else max(ranking, sizes.states(columns))

        return Need(drawn, drawn)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float:
        """Hashes and ranking, roughly."""
        return 50.0 * sizes.footprint.n_layers * sizes.footprint.units(self.ranks) * len(self.seeds)

    def describe(self, model: NeuronModel) -> dict[str, object]:
        """Seeds, site, sign and unit."""
        return {
            "method": "random neurons",
            "seeds": self.seeds,
            "site": self.ranks,
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
        return self.drawn(model, batch["index"], None if self.ranks == "attn" else neurons_of(model, batch))

    def drawn(self, model: NeuronModel, index: Tensor, present: Tensor | None) -> NeuronScores:
        """See `attribute`, among FFN neurons that are known to be there (`neurons_of`)."""
        n_ffn = model.n_layers * model.n_neurons
        ffn = self._drawn(index, 0, model.n_layers, model.n_neurons)
        if self.ranks == "ffn":
            return rank_neurons(ffn, self.top_k, present=present)
        # numbers behind those of the FFN neurons, so that the two sites are drawn apart
        attention = self._drawn(index, n_ffn, model.n_layers, model.n_attention)
        if self.ranks == "attn":
            return rank_sites(None, attention, self.top_k)
        return rank_sites(ffn, attention, self.top_k, present=present)

    def _drawn(self, index: Tensor, first: int, n_layers: int, n_units: int) -> Tensor:
        """A score of every unit of a site, whose units have the numbers from `first` on, [batch, layers, units]."""
        columns = torch.arange(first, first + n_layers * n_units, device=index.device)
        return uniform(self.seeds[0], index, columns).unflatten(1, (n_layers, n_units))


@torch.no_grad()
def neurons_of(model: NeuronModel, batch: Batch) -> Tensor | None:
    """Which FFN neurons each example has, bool [batch, layers, neurons]; None: all, as where there are no experts."""
    if model.experts is None:
        return None
    activation = model.states(batch, batch.get("target")).activation
    own = activation.unflatten(0, (-1, model.sequences_per_example)).abs().amax(1)
    return with_coefficient(model.experts, own)
