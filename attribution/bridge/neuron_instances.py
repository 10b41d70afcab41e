"""NA-Instances: train examples whose important neurons are the test example's (DCNS).

A method whose input are the neuron lists of another method of the run, named in `sources` (Yu, Atanasova and
Augenstein 2024, Sec. 3.2, Eq. 1). The way back, IA-Neurons, is `twinlens.attribution.bridge.instance_neurons`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.bridge.neuron_lists import PAPER, NeuronLists, list_length, text_positions
from twinlens.attribution.bridge.shared_sums import BYTES_PER_CHUNK, Gain, SharedNeuronSums, TestLists, entry_gains
from twinlens.attribution.bridge.text_neuron_lists import TextNeuronLists
from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.instance.protocol import InstanceMethod
from twinlens.attribution.method import Lens, Source, TextPositions

Missing = Literal["zero", "-inf"]
Preset = Literal["paper", "reference", "texts"]

COMMON_ASSUMED = 512
"""Neurons that stand in most lists, for a plan."""
_SELF_BLOCK = 256  # train examples whose lists are compared with themselves at a time


@dataclass(frozen=True)
class Reading:
    """One reading of Eq. 1, the settings that a preset stands for.

    Attributes:
        gain, train_list, test_list, missing: see `NeuronInstances`.

    Example:
        >>> from twinlens.attribution.bridge.neuron_instances import PRESETS
        >>> PRESETS["reference"]
        Reading(gain='zscore', train_list=100, test_list=5, missing='-inf')
    """

    gain: Gain
    train_list: int
    test_list: int
    missing: Missing


PRESETS: dict[str, Reading] = {
    "paper": Reading("raw", 100, 100, "zero"),
    # the authors' code: z-scored train scores, the test's five best neurons, −∞ where none is shared
    "reference": Reading("zscore", 100, 5, "-inf"),
    # language models: what ranks best on the shipped facts: which neurons are shared counts, not how high they score
    "texts": Reading("flat", 20, 20, "zero"),
}


class NeuronInstances(InstanceMethod):
    """NA-Instances: train examples whose important neurons are the test example's (DCNS, Eq. 1 of the paper).

    g(i, t) = Σ_m [n_t^m ∈ N_i] (2^{ns_t^m} − 1)/log2(m + 1), summed over the entries m of the train list t. N_i is the
    set of the test's first `test_list` neurons. Every entry of the train list counts with its own rank and score, also
    where a neuron stands in it twice; a neuron that stands twice in the test list counts once. Lists that are shorter
    are taken as they are; an empty one shares nothing.

    Args:
        source: name of the neuron method of the run whose lists are compared.
        preset: `paper` (Eq. 1 as printed), `reference` (the authors' code) or `texts` (for language models); the next
            four override it.
        gain: `raw` takes the train scores as they are; `zscore` standardises them over each train list (population's
            standard deviation; a list of equal scores gets zeros, and so do its gains).
        train_list, test_list: entries of the train and the test lists that are used.
        missing: score of a pair that shares no neuron, 0 (`zero`) or −∞ (`-inf`). A pair that does share one keeps
            its sum, also where that is 0.
        positions: where the neurons of a language model's train texts are scored: `all`, at every token that counts,
            of which the closest one counts; `last`, at their last token alone. Classes and choices are read at their
            answer token.
        top_k: length of the stored lists.

    Raises:
        UserError: an unknown preset, a length below 1, `missing` or `positions` neither of the two.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.neuron_instances import NeuronInstances
        >>> from twinlens.attribution.bridge.neuron_lists import NeuronLists
        >>> train = NeuronLists(torch.tensor([[0, 1], [1, 1]]), torch.tensor([[5, 2], [7, 6]]), torch.ones(2, 2), 2, 8)
        >>> test = NeuronLists(torch.tensor([[1, 0]]), torch.tensor([[2, 5]]), torch.ones(1, 2), 2, 8)
        >>> scorer = NeuronInstances(source="ig").prepare(train, memory_budget=2**20)
        >>> query = scorer.query(test, torch.tensor([0]))
        >>> scorer.scores(query, 0, 2).round(decimals=2)  # (2¹ − 1)/log₂2 + (2¹ − 1)/log₂3; nothing shared with row 1
        tensor([[1.6300, 0.0000]], dtype=torch.float64)
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    reads: ClassVar[str] = "neurons"
    explains: Lens | None = "neuron"
    sign = "none: a similarity, carries no loss sign"

    def __init__(
        self,
        source: str,
        preset: Preset = "paper",
        gain: Gain | None = None,
        train_list: int | None = None,
        test_list: int | None = None,
        missing: Missing | float | None = None,
        positions: TextPositions = "all",
        top_k: int = 100,
    ) -> None:
        if preset not in PRESETS:
            raise UserError(f"unknown preset '{preset}' of na_instances; expected one of {', '.join(PRESETS)}.")
        reading = PRESETS[preset]
        self.source = source
        self.preset = preset
        self.gain: Gain = reading.gain if gain is None else gain
        self.train_list = list_length("train_list", reading.train_list if train_list is None else train_list)
        self.test_list = list_length("test_list", reading.test_list if test_list is None else test_list)
        self.missing = _missing(reading.missing if missing is None else missing)
        self.positions: TextPositions = text_positions(positions)
        self.top_k = list_length("top_k", top_k)

    @property
    def unit(self) -> str:
        """Unit of the scores."""
        return f"discounted cumulative gain, {self.gain} train scores"

    @property
    def adds_up(self) -> bool:
        """As far as the neurons' scores do, which are asked themselves: a completion has one list."""
        return True

    @property
    def sources(self) -> tuple[Source, ...]:
        """The neuron method whose lists are compared, of the train split too."""
        lengths = {"train_list": self.train_list, "test_list": self.test_list}
        return (Source("source", self.source, "neuron", of_train=True, lengths=lengths, positions=self.positions),)

    def cost(self, sizes: PassSizes) -> InstanceCost:
        """The train lists with their gains, a chunk of look-ups and blocks of lists.

        How many neurons stand in most lists shows only in the lists: a few hundred are assumed, whose dense product
        takes most of the operations.
        """
        per_list = 16 * (COMMON_ASSUMED + 1) + 64 * self.train_list
        held = sizes.n_train * self.train_list * 12 + BYTES_PER_CHUNK
        memory = held + sizes.streamed(per_list, per_list, held)
        return InstanceCost(memory, 2.0 * COMMON_ASSUMED * sizes.n_train * sizes.n_test)

    def prepare(self, train: NeuronLists, memory_budget: int) -> NeuronInstancesScorer:
        """Turn the train lists into gains.

        Raises:
            UserError: scores that are NaN or infinite, or raw scores so high that 2^score is beyond float64.
        """
        address = train.addresses(self.train_list)
        listed = address >= 0
        rows = train.text if isinstance(train, TextNeuronLists) else torch.arange(len(train))
        score = torch.where(listed, train.score[:, : self.train_list], 0)
        require_finite(score, f"the score of {self.source} on train", rows)
        gains = entry_gains(score, listed, self.gain)
        finite = torch.isfinite(gains.abs().sum(1))
        if not bool(finite.all()):
            raise UserError(
                f"{self.source} scores train examples as high as {float(score.max()):.3g}, and two to that power is no "
                f"finite number (first: index {int(rows[~finite.cpu()][0])}); expected scores below 1000: "
                "use gain=zscore."
            )
        sums = SharedNeuronSums(address, gains, train.n_layers * train.n_neurons)
        return NeuronInstancesScorer(self, train, sums)


def _missing(value: Missing | float) -> Missing:
    """−∞ may also come as a number, which is what Hydra reads on the command line."""
    if value == "zero":
        return "zero"
    if value == "-inf" or value == -math.inf:
        return "-inf"
    raise UserError(f"missing of na_instances is {value}; expected zero or -inf: choose one of the two.")


class NeuronInstancesScorer:
    """`InstanceScorer` of `NeuronInstances`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.neuron_instances import NeuronInstances
        >>> from twinlens.attribution.bridge.neuron_lists import NeuronLists
        >>> train = NeuronLists(torch.tensor([[0, 1], [1, 1]]), torch.tensor([[5, 2], [7, 6]]), torch.ones(2, 2), 2, 8)
        >>> scorer = NeuronInstances(source="ig", missing="-inf").prepare(train, memory_budget=2**20)
        >>> scorer.scores(scorer.query(train.rows(0, 1), torch.tensor([0])), 0, 2).round(decimals=2)
        tensor([[1.6300,   -inf]], dtype=torch.float64)
        >>> scorer.describe()["sign"]
        'none: a similarity, carries no loss sign'
    """

    def __init__(self, method: NeuronInstances, train: NeuronLists, sums: SharedNeuronSums) -> None:
        self.method, self.train, self.sums = method, train, sums
        self.n_train = len(train)
        self.bytes_per_query = self.bytes_per_row = sums.bytes_per_list
        if isinstance(train, TextNeuronLists):
            self.bytes_per_row *= train.longest
        self.bytes_held = sums.bytes_held
        self.ranks = method.missing == "-inf"

    def describe(self) -> dict[str, object]:
        """Settings, sign and unit."""
        method = self.method
        return {
            "method": "NA-Instances: discounted cumulative neuron similarity (DCNS)",
            "paper": f"{PAPER}, Eq. 1",
            "source": method.source,
            "preset": method.preset,
            "gain": method.gain,
            "train_list": method.train_list,
            "test_list": method.test_list,
            "missing": method.missing,
            "positions": method.positions,
            "sign": method.sign,
            "unit": method.unit,
        }

    def query(self, test: NeuronLists, index: Tensor) -> TestLists:
        """The tests' neurons, looked up."""
        if (test.n_layers, test.n_neurons) != (self.train.n_layers, self.train.n_neurons):
            raise ValueError("Train and test lists are of two models.")
        return self.sums.query(test.addresses(self.method.test_list))

    def scores(self, query: TestLists, start: int, stop: int) -> Tensor:
        """[tests, stop − start], float64; the same in whatever blocks."""
        if not isinstance(self.train, TextNeuronLists):
            return self._of_lists(query, start, stop)
        of_tokens = self._of_lists(query, *self.train.tokens_of(start, stop))
        return self.train.highest(of_tokens, start, stop, -math.inf if self.ranks else 0.0)

    def _of_lists(self, query: TestLists, start: int, stop: int) -> Tensor:
        scores = self.sums.sums(query, start, stop)
        # A pair without shared neurons sums to 0, so that the others need not be counted.
        if self.ranks and bool((scores == 0).any()):
            scores.masked_fill_(self.sums.counts(query, start, stop) == 0, -math.inf)
        return scores

    def self_influence(self) -> Tensor | None:
        """Score of each train example against itself, [n_train], float64; None: texts have no list of their own."""
        if isinstance(self.train, TextNeuronLists):
            return None
        address = self.train.addresses(self.method.train_list)
        tests = self.train.addresses(self.method.test_list)
        parts = [torch.empty(0, dtype=torch.float64, device=address.device)]
        for start in range(0, self.n_train, _SELF_BLOCK):
            block = slice(start, start + _SELF_BLOCK)
            shared = ((address[block, :, None] == tests[block, None, :]).any(2)) & (address[block] >= 0)
            own = torch.where(shared, self.sums.weight[block], 0.0).sum(1)
            parts.append(own.masked_fill_(~shared.any(1), -math.inf) if self.ranks else own)
        return torch.cat(parts)
