"""Bridges between the two lenses: NA-Instances (neurons → instances, DCNS) and IA-Neurons (instances → neurons).

Both are methods whose input are the results of other methods of the run, named in `sources` (Yu, Atanasova and
Augenstein 2024, Sec. 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.bridge.shared_sums import Gain, SharedNeuronSums, TestLists, entry_gains
from twinlens.attribution.neuron.ranking import NeuronScores
from twinlens.attribution.protocols import UserError, require_finite

Missing = Literal["zero", "-inf"]
Preset = Literal["paper", "reference"]

PAPER = "Yu, Atanasova, Augenstein 2024 (arXiv 2404.18655)"
_SELF_BLOCK = 256  # train examples whose lists are compared with themselves at a time


@dataclass(frozen=True)
class NeuronLists:
    """The best neurons of every example of a split, best first.

    Attributes:
        layer, unit: address of each neuron, [examples, r], int32; −1 where a list is shorter.
        score: [examples, r], float32.
        n_layers, n_neurons: of the model; neurons per layer.

    Raises:
        ValueError: if the three are not of one shape.
    """

    layer: Tensor
    unit: Tensor
    score: Tensor
    n_layers: int
    n_neurons: int

    def __post_init__(self) -> None:
        if not self.layer.shape == self.unit.shape == self.score.shape or self.layer.dim() != 2:
            shapes = ", ".join(str(tuple(t.shape)) for t in (self.layer, self.unit, self.score))
            raise ValueError(f"layer, unit and score are {shapes}; expected one shape [examples, r].")

    def __len__(self) -> int:
        return len(self.layer)

    def rows(self, start: int, stop: int) -> NeuronLists:
        """A contiguous part of the examples."""
        part = slice(start, stop)
        return NeuronLists(self.layer[part], self.unit[part], self.score[part], self.n_layers, self.n_neurons)

    def addresses(self, length: int) -> Tensor:
        """layer · n_neurons + unit of the first `length` entries, [examples, min(length, r)], int64; −1: none."""
        layer, unit = self.layer[:, :length].long(), self.unit[:, :length].long()
        return torch.where(layer >= 0, layer * self.n_neurons + unit, -1)


# -- neurons → instances -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One reading of Eq. 1; the fields are those of `NeuronInstances`."""

    gain: Gain
    train_list: int
    test_list: int
    missing: Missing


PRESETS: dict[str, Reading] = {
    "paper": Reading("raw", 100, 100, "zero"),
    # the authors' code: z-scored train scores, the test's five best neurons, −∞ where none is shared
    "reference": Reading("zscore", 100, 5, "-inf"),
}


class NeuronInstances:
    """NA-Instances: train examples whose important neurons are the test example's (DCNS, Eq. 1 of the paper).

    g(i, t) = Σ_m [n_t^m ∈ N_i] (2^{ns_t^m} − 1)/log2(m + 1), summed over the entries m of the train list t. N_i is the
    set of the test's first `test_list` neurons. Every entry of the train list counts with its own rank and score, also
    where a neuron stands in it twice; a neuron that stands twice in the test list counts once. Lists that are shorter
    are taken as they are; an empty one shares nothing.

    Args:
        source: name of the neuron method of the run whose lists are compared.
        preset: `paper` (Eq. 1 as printed) or `reference` (the authors' code); the next four override it.
        gain: `raw` takes the train scores as they are; `zscore` standardises them over each train list (population's
            standard deviation; a list of equal scores gets zeros, and so do its gains).
        train_list, test_list: entries of the train and the test lists that are used.
        missing: score of a pair that shares no neuron, 0 (`zero`) or −∞ (`-inf`). A pair that does share one keeps
            its sum, also where that is 0.
        top_k: length of the stored lists.

    Raises:
        UserError: an unknown preset, a length below 1, `missing` neither of the two.
    """

    reads: ClassVar[Literal["neurons"]] = "neurons"

    def __init__(
        self,
        source: str,
        preset: Preset = "paper",
        gain: Gain | None = None,
        train_list: int | None = None,
        test_list: int | None = None,
        missing: Missing | float | None = None,
        top_k: int = 100,
    ) -> None:
        if preset not in PRESETS:
            raise UserError(f"unknown preset '{preset}' of na_instances; expected one of {', '.join(PRESETS)}.")
        reading = PRESETS[preset]
        self.source = source
        self.preset = preset
        self.gain: Gain = reading.gain if gain is None else gain
        self.train_list = _length("train_list", reading.train_list if train_list is None else train_list)
        self.test_list = _length("test_list", reading.test_list if test_list is None else test_list)
        self.missing = _missing(reading.missing if missing is None else missing)
        self.top_k = _length("top_k", top_k)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the methods whose results this one reads."""
        return (self.source,)

    def prepare(self, train: NeuronLists, memory_budget: int) -> NeuronInstancesScorer:
        """Turn the train lists into gains.

        Raises:
            UserError: scores that are NaN or infinite, or raw scores so high that 2^score is beyond float64.
        """
        address = train.addresses(self.train_list)
        listed = address >= 0
        rows = torch.arange(len(train))
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


def _length(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{name} of a bridge is {value}; expected at least 1: leave it out or name a length.")
    return value


def _missing(value: Missing | float) -> Missing:
    """−∞ may also come as a number, which is what Hydra reads on the command line."""
    if value == "zero":
        return "zero"
    if value == "-inf" or value == -math.inf:
        return "-inf"
    raise UserError(f"missing of na_instances is {value}; expected zero or -inf: choose one of the two.")


class NeuronInstancesScorer:
    """`InstanceScorer` of `NeuronInstances`."""

    def __init__(self, method: NeuronInstances, train: NeuronLists, sums: SharedNeuronSums) -> None:
        self.method, self.train, self.sums = method, train, sums
        self.n_train = len(train)
        self.bytes_per_query = self.bytes_per_row = sums.bytes_per_list
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
            "sign": "none: a similarity, carries no loss sign",
            "unit": f"discounted cumulative gain, {method.gain} train scores",
        }

    def query(self, test: NeuronLists, index: Tensor) -> TestLists:
        """The tests' neurons, looked up."""
        if (test.n_layers, test.n_neurons) != (self.train.n_layers, self.train.n_neurons):
            raise ValueError("Train and test lists are of two models.")
        return self.sums.query(test.addresses(self.method.test_list))

    def scores(self, query: TestLists, start: int, stop: int) -> Tensor:
        """[tests, stop − start], float64; the same in whatever blocks."""
        scores = self.sums.sums(query, start, stop)
        # A pair without shared neurons sums to 0, so that the others need not be counted.
        if self.ranks and bool((scores == 0).any()):
            scores.masked_fill_(self.sums.counts(query, start, stop) == 0, -math.inf)
        return scores

    def self_influence(self) -> Tensor:
        """Score of each train example against itself, [n_train], float64."""
        address = self.train.addresses(self.method.train_list)
        tests = self.train.addresses(self.method.test_list)
        parts = [torch.empty(0, dtype=torch.float64, device=address.device)]
        for start in range(0, self.n_train, _SELF_BLOCK):
            block = slice(start, start + _SELF_BLOCK)
            shared = ((address[block, :, None] == tests[block, None, :]).any(2)) & (address[block] >= 0)
            own = torch.where(shared, self.sums.weight[block], 0.0).sum(1)
            parts.append(own.masked_fill_(~shared.any(1), -math.inf) if self.ranks else own)
        return torch.cat(parts)


# -- instances → neurons -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InstanceNeurons:
    """IA-Neurons: the top-1 neuron of each of the most influential train examples, in their order.

    Attributes:
        source: name of the instance method of the run that ranks the train examples.
        neurons: name of the neuron method of the run whose train lists give the neurons.
        top_k: train examples whose neuron is taken, and length of the lists.
        dedup: False keeps a neuron as often as it comes, as the paper does; True keeps its first occurrence and goes
            on down the train examples until there are `top_k` different neurons or no train examples are left.
    """

    source: str
    neurons: str = "ig"
    top_k: int = 100
    dedup: bool = False

    def __post_init__(self) -> None:
        _length("top_k", self.top_k)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the methods whose results this one reads."""
        return (self.source, self.neurons)

    def describe(self) -> dict[str, object]:
        """Settings, sign and unit."""
        return {
            "method": "IA-Neurons: top-1 neurons of the most influential train examples",
            "paper": f"{PAPER}, Sec. 3.2",
            "source": self.source,
            "neurons": self.neurons,
            "top_k": self.top_k,
            "dedup": self.dedup,
            "sign": f"that of {self.source}: the score is the train example's, not the neuron's",
            "unit": f"that of {self.source}",
        }

    def compose(self, top_index: Tensor, top_score: Tensor, train: NeuronLists) -> NeuronScores:
        """The lists of a batch of tests.

        A train example without neurons is passed over, and so is one with score −∞, which is no influential one.

        Args:
            top_index: train rows, the most influential first, [tests, k]; −1 is passed over.
            top_score: their scores, [tests, k].
            train: neuron lists of the whole train split.

        Returns:
            [tests, min(top_k, k)], −1 (and score 0) at the end of shorter lists; the score is the train example's.
        """
        width = top_index.shape[1] if self.dedup else min(self.top_k, top_index.shape[1])
        index, score = top_index[:, :width].long(), top_score[:, :width].float()
        first = torch.cat([train.addresses(1), torch.full((len(train), 1), -1, device=train.layer.device)], 1)[:, 0]
        address = torch.where(index >= 0, first[index.clamp(min=0)], -1)
        kept = (address >= 0) & (score > -math.inf)
        if self.dedup:
            kept &= _first_occurrence(torch.where(kept, address, -1))
        order = (~kept).int().argsort(dim=1, stable=True)[:, : self.top_k]
        kept, address, score = kept.gather(1, order), address.gather(1, order), score.gather(1, order)
        layer = address.div(train.n_neurons, rounding_mode="floor")
        unit = address.remainder(train.n_neurons)
        return NeuronScores(layer.where(kept, -1).int(), unit.where(kept, -1).int(), score.where(kept, 0))


def _first_occurrence(values: Tensor) -> Tensor:
    """Where a value stands for the first time in its row, [rows, k]."""
    ordered, position = values.sort(dim=1, stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(new).scatter_(1, position, new)
