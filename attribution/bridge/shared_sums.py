"""Sums over the neurons that a train list shares with a test list: the arithmetic of NA-Instances (DCNS).

The sum for a pair is an entry of (test × neuron, 0 or 1) · (neuron × train, gains). A few hundred neurons stand in
most lists; their columns go through a dense product. The others, most of the neurons but the smaller part of the
work, are looked up: each entry of a train list is added to the tests that list its neuron.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Gain = Literal["raw", "zscore", "flat"]

DENSE_SHARE = 1 / 16
"""Share of the train lists above which a neuron gets a column of the dense product: about where both ways take the
same time on CPUs. With lists of r entries there are at most 16·r columns."""

_PAIRS_PER_CHUNK = 2**18
"""Pairs that are looked up at a time; a chunk stays in the caches."""

BYTES_PER_CHUNK = 64 * _PAIRS_PER_CHUNK
"""Working memory of a chunk."""

_SUM_BITS = 52
_CLASS_BITS = 8


def entry_gains(score: Tensor, listed: Tensor, gain: Gain) -> Tensor:
    """(2^s − 1)/log2(m + 1) of every entry of every list, m = 1 for the first.

    Args:
        score: [examples, r], best first.
        listed: [examples, r]; False where a list is shorter.
        gain: `raw` takes the scores as they are, `zscore` standardises them within each list, `flat` takes 1 for all.

    Returns:
        [examples, r], float64; 0 where nothing is listed; infinite where 2^s is beyond float64.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.shared_sums import entry_gains
        >>> score, listed = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[True, True, False]])
        >>> entry_gains(score, listed, "raw").round(decimals=2)
        tensor([[3.0000, 0.6300, 0.0000]], dtype=torch.float64)
    """
    relevance = score.double()
    if gain == "zscore":
        relevance = standardised(relevance, listed)
    elif gain == "flat":
        relevance = torch.ones_like(relevance)
    rank = torch.arange(1, score.shape[1] + 1, dtype=torch.float64, device=score.device)
    gains = torch.expm1(relevance * math.log(2)) / torch.log2(rank + 1)
    return torch.where(listed, gains, 0.0)


def standardised(score: Tensor, listed: Tensor) -> Tensor:
    """z-scores over each list with the population's standard deviation; a list of equal scores gets zeros.

    Args:
        score: [examples, r], float64.
        listed: [examples, r].
    """
    # From the first entry on, so that equal scores leave exact zeros and not the rounding errors of their mean.
    above = torch.where(listed, score - score[:, :1], 0.0)
    number = listed.sum(1, keepdim=True).clamp(min=1)
    deviation = torch.where(listed, above - above.sum(1, keepdim=True) / number, 0.0)
    spread = (deviation.square().sum(1, keepdim=True) / number).sqrt()
    spread = torch.where((above != 0).any(1, keepdim=True), spread, 0.0)
    return torch.where(spread > 0, deviation / spread, 0.0)


def exactly_summable(weight: Tensor) -> Tensor:
    """Round each row to multiples of a power of two so coarse that every sum of its entries is exact in float64.

    Sums then are the same in whatever order, block or number of threads they are taken, and ties stay ties. The
    power is the same for all rows whose totals lie within a factor 2^8 (one class of totals), so that equal entries
    of such rows stay equal. An entry changes by at most 2^-45 of its row's total, below what float32 scores show.

    Args:
        weight: [rows, r], float64, finite sums.
    """
    exponent = torch.frexp(weight.abs().sum(1)).exponent
    top = -torch.div(-exponent, _CLASS_BITS, rounding_mode="floor") * _CLASS_BITS
    lowest = -1020 + _SUM_BITS  # totals near float64's smallest numbers: their quantum must stay a normal number
    top = top.clamp(min=lowest).long()
    powers = [math.ldexp(1.0, e - _SUM_BITS) for e in range(lowest, 1025 + _CLASS_BITS)]
    quantum = torch.tensor(powers, dtype=torch.float64, device=weight.device)[top - lowest][:, None]
    return (weight / quantum).round() * quantum


@dataclass(frozen=True)
class TestLists:
    """The neurons that a block of tests lists.

    Attributes:
        common: 1 where a test lists a neuron of the dense product, [tests, common neurons], float64.
        holders: tests that list a rare neuron, ordered by neuron, [entries].
        starts: where each neuron's holders begin, [neurons + 1].

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.shared_sums import SharedNeuronSums
        >>> sums = SharedNeuronSums(torch.tensor([[0, 3], [3, 5]]), torch.tensor([[1.0, 0.5], [1.0, 0.5]]).double(), 8)
        >>> tests = sums.query(torch.tensor([[3, 4], [0, -1]]))  # the neurons of two tests
        >>> len(tests), sums.counts(tests, 0, 2)  # neurons that each test shares with each train list
        (2, tensor([[1., 1.],
                [1., 0.]], dtype=torch.float64))
    """

    __test__ = False  # the name begins like a test's; pytest shall not collect it

    common: Tensor
    holders: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.common)


class SharedNeuronSums:
    """Σ over the entries of a train list whose neuron stands in the test's list, of the entries' weights.

    Args:
        address: number of the neuron, [train, r]; −1 where a list is shorter.
        weight: [train, r], float64; 0 where nothing is listed.
        n_addresses: number of neurons of the model.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.shared_sums import SharedNeuronSums
        >>> neurons, weights = torch.tensor([[0, 3], [3, 5]]), torch.tensor([[1.0, 0.5], [1.0, 0.5]]).double()
        >>> sums = SharedNeuronSums(neurons, weights, n_addresses=8)
        >>> tests = sums.query(torch.tensor([[3, 4]]))  # a test that lists neurons 3 and 4
        >>> sums.sums(tests, 0, 2)  # neuron 3 weighs 0.5 in the first train list and 1 in the second
        tensor([[0.5000, 1.0000]], dtype=torch.float64)
    """

    def __init__(self, address: Tensor, weight: Tensor, n_addresses: int) -> None:
        self.address = address.int()
        self.weight = exactly_summable(weight)
        self.n_addresses = n_addresses
        lists = torch.bincount(address[address >= 0], minlength=n_addresses)
        common = lists > DENSE_SHARE * len(address)
        self.n_common = int(common.sum())
        # Both tables have a last entry that the address −1 finds: it has no column and is not looked up.
        nothing = common.new_zeros(1)
        self.column = torch.cat([torch.where(common, common.cumsum(0) - 1, self.n_common), lists.new_zeros(1)])
        self.column[-1] = self.n_common
        self.rare = torch.cat([(lists > 0) & ~common, nothing])

    @property
    def bytes_per_list(self) -> int:
        """Working memory of one list of a block: its row of the dense product and its entries."""
        return 16 * (self.n_common + 1) + 64 * self.address.shape[1]

    @property
    def bytes_held(self) -> int:
        """The train lists, the tables and one chunk of look-ups."""
        tensors = (self.address, self.weight, self.column, self.rare)
        return sum(t.numel() * t.element_size() for t in tensors) + BYTES_PER_CHUNK

    def query(self, address: Tensor) -> TestLists:
        """Take in the neurons of a block of tests, [tests, r]; a neuron that a test lists twice counts once."""
        address = address.to(self.address.device).long()
        n_tests = len(address)
        listed = torch.zeros(n_tests, self.n_common + 1, dtype=torch.float64, device=address.device)
        listed.scatter_(1, self.column[address], 1.0)  # the extra last column swallows all others
        rare = self.rare[address]
        key = torch.unique(address[rare] * max(1, n_tests) + rare.nonzero()[:, 0])
        holders = key.remainder(max(1, n_tests))
        number = torch.bincount(key.div(max(1, n_tests), rounding_mode="floor"), minlength=self.n_addresses)
        return TestLists(listed[:, :-1], holders, torch.cat([number.new_zeros(1), number.cumsum(0)]))

    def sums(self, tests: TestLists, start: int, stop: int) -> Tensor:
        """Sums of the weights for train rows start … stop − 1, [tests, stop − start], float64, exact."""
        return self._sums(tests, self.address[start:stop].long(), self.weight[start:stop])

    def counts(self, tests: TestLists, start: int, stop: int) -> Tensor:
        """Numbers of train entries whose neuron the test lists, [tests, stop − start], float64."""
        address = self.address[start:stop].long()
        return self._sums(tests, address, (address >= 0).double())

    def _sums(self, tests: TestLists, address: Tensor, weight: Tensor) -> Tensor:
        n_rows = len(address)
        rows = torch.zeros(n_rows, self.n_common + 1, dtype=torch.float64, device=weight.device)
        rows.scatter_add_(1, self.column[address], weight)
        sums = tests.common @ rows[:, :-1].T
        flat = sums.view(-1)
        rare = self.rare[address]
        row, weight, address = rare.nonzero()[:, 0], weight[rare], address[rare]
        first = tests.starts[address]
        number = tests.starts[address + 1] - first
        for begin, end in _chunks(number):
            entry = torch.repeat_interleave(torch.arange(begin, end, device=number.device), number[begin:end])
            passed = number[begin:end].cumsum(0) - number[begin:end]
            place = torch.arange(len(entry), device=number.device) - passed[entry - begin]
            holder = tests.holders[first[entry] + place]
            flat.index_add_(0, holder * n_rows + row[entry], weight[entry])
        return sums


def _chunks(number: Tensor) -> Iterator[tuple[int, int]]:
    """Cut entries with the given numbers of pairs where a chunk of pairs is full."""
    ends = number.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    full = torch.arange(_PAIRS_PER_CHUNK, max(total, _PAIRS_PER_CHUNK), _PAIRS_PER_CHUNK, device=ends.device)
    cuts = (torch.searchsorted(ends, full) + 1).unique().tolist()
    begins, stops = [0, *cuts], [*cuts, len(ends)]
    yield from ((begin, end) for begin, end in zip(begins, stops, strict=True) if end > begin)
