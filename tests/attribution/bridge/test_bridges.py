from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests import oracles, oracles_bridge
from tests.attribution.instance.cases import BUDGET, score_matrix
from twinlens.attribution.bridge import shared_sums as bridge_sums
from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
from twinlens.attribution.bridge.neuron_instances import PRESETS, NeuronInstances
from twinlens.attribution.bridge.neuron_lists import NeuronLists
from twinlens.attribution.bridge.shared_sums import exactly_summable
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer, InstanceScores
from twinlens.attribution.instance.ranks import average_ranks
from twinlens.attribution.instance.stream import TrainSummary, block_sizes, stream_scores

LAYERS, NEURONS = 2, 4
Entries = list[tuple[int, float]]


def lists_of(entries: list[Entries], length: int | None = None) -> NeuronLists:
    """Lists of (address, score) as they are stored: −1 where one is shorter."""
    r = max([0, *map(len, entries)]) if length is None else length
    layer, unit = torch.full((2, len(entries), r), -1, dtype=torch.int32)
    score = torch.zeros(len(entries), r)
    for row, listed in enumerate(entries):
        for m, (address, value) in enumerate(listed):
            layer[row, m], unit[row, m], score[row, m] = address // NEURONS, address % NEURONS, value
    return NeuronLists(layer, unit, score, LAYERS, NEURONS)


# Few neurons and few scores: duplicates within a list, ties, lists of equal scores and empty ones are common.
SCORES = st.one_of(st.sampled_from([0.0, 1.0, 2.0, -1.0]), st.floats(-4, 8, width=32))
LIST = st.lists(st.tuples(st.integers(0, LAYERS * NEURONS - 1), SCORES), max_size=6)
SPLIT = st.lists(LIST, min_size=1, max_size=6)
METHODS = [
    {"preset": "paper"},
    {"preset": "reference"},
    {"gain": "zscore", "train_list": 3, "test_list": 4},
    {"missing": "-inf", "train_list": 4, "test_list": 2},
]


def loop(method: NeuronInstances, train: list[Entries], test: list[Entries]) -> Tensor:
    """The definition, pair by pair, [tests, train]."""
    missing = 0.0 if method.missing == "zero" else -math.inf
    rows = [
        [oracles_bridge.dcns(t[: method.train_list], i[: method.test_list], method.gain, missing) for t in train]
        for i in test
    ]
    return torch.tensor(rows, dtype=torch.float64).view(len(test), len(train))


@pytest.mark.parametrize("dense_share", [-1.0, 0.4, 2.0], ids=["dense", "mixed", "rare"])
@pytest.mark.parametrize("options", METHODS, ids=["paper", "reference", "zscore", "-inf"])
def test_na_instances_equal_the_double_loop(options, dense_share, monkeypatch):
    monkeypatch.setattr(bridge_sums, "DENSE_SHARE", dense_share)
    monkeypatch.setattr(bridge_sums, "_PAIRS_PER_CHUNK", 3)
    method = NeuronInstances("ig", **options)

    @settings(max_examples=60, deadline=None)
    @given(train=SPLIT, test=SPLIT)
    def check(train, test):
        scorer = method.prepare(lists_of(train), BUDGET)
        scores = score_matrix(scorer, lists_of(test))
        torch.testing.assert_close(scores, loop(method, train, test), rtol=1e-10, atol=1e-10)
        own = loop(method, train, train).diagonal()
        torch.testing.assert_close(scorer.self_influence(), own, rtol=1e-10, atol=1e-10)

    check()


def test_eq_1_by_hand():
    """A neuron twice in the train list counts with both its entries, twice in the test list once."""
    train = lists_of([[(3, 3.0), (5, 2.0), (3, 1.0)], [(0, 5.0)], []])
    test = lists_of([[(3, 0.1), (3, 0.1)], [(5, 9.0), (0, 9.0)]])
    scores = score_matrix(NeuronInstances("ig").prepare(train, BUDGET), test)
    expected = [[7 + 1 / 2, 0, 0], [3 / math.log2(3), 31, 0]]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_without_a_shared_neuron_is_not_the_same_as_a_sum_of_zero():
    equal = lists_of([[(1, 2.0), (2, 2.0)], [(3, 0.0)], [(4, 1.0)], []])  # z-scores of equal scores are 0
    test = lists_of([[(1, 1.0), (3, 1.0)], []])
    scores = score_matrix(NeuronInstances("ig", gain="zscore", missing="-inf").prepare(equal, BUDGET), test)
    assert scores.tolist() == [[0.0, 0.0, -math.inf, -math.inf], [-math.inf] * 4]


def random_lists(n: int, seed: int, r: int = 20, addresses: int = 400) -> NeuronLists:
    """Lists in which a few neurons are common, some of them short, with exact copies among them."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, addresses, generator=generator)
    address = (noise + 2 * torch.randn(addresses, generator=torch.Generator().manual_seed(9))).topk(r).indices
    score = torch.rand(n, r, generator=generator).sort(descending=True).values
    kept = torch.arange(r) < torch.randint(0, 3 * r, (n, 1), generator=generator)
    address[n // 2], score[n // 2], kept[n // 2] = address[1].clone(), score[1].clone(), kept[1].clone()
    layer, unit = torch.where(kept, address // 100, -1).int(), torch.where(kept, address % 100, -1).int()
    return NeuronLists(layer, unit, score.where(kept, 0), 4, 100)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_scores_are_the_same_numbers_in_whatever_blocks(preset, monkeypatch):
    train, test = random_lists(60, 1), random_lists(31, 2)
    scorer = NeuronInstances("ig", preset).prepare(train, BUDGET)
    assert 0 < scorer.sums.n_common < 100
    whole = score_matrix(scorer, test)
    for rows, tests in ((1, 1), (7, 31), (60, 2)):
        parts = [
            torch.cat([scorer.scores(query, a, min(a + rows, 60)) for a in range(0, 60, rows)], 1)
            for query in (scorer.query(test.rows(b, b + tests), torch.arange(1)) for b in range(0, 31, tests))
        ]
        assert torch.equal(torch.cat(parts), whole)
    for share in (-1.0, 2.0):  # how neurons are split between the two products is no part of the result either
        monkeypatch.setattr(bridge_sums, "DENSE_SHARE", share)
        assert torch.equal(score_matrix(NeuronInstances("ig", preset).prepare(train, BUDGET), test), whole)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e300, 1e300) | st.floats(-1, 1) | st.sampled_from([0.0, 5e-324]), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_sums_of_rounded_weights_are_exact_in_any_order(values, random):
    rounded = exactly_summable(torch.tensor([values], dtype=torch.float64))[0].tolist()
    for value, other in zip(values, rounded, strict=True):
        assert abs(value - other) <= max(2.0**-45 * math.fsum(map(abs, values)), 2.0**-1020)
    exact = math.fsum(rounded)
    for _ in range(3):
        random.shuffle(rounded)
        total = 0.0
        for value in rounded:
            total += value
        assert total == exact


@pytest.mark.parametrize("preset", list(PRESETS))
def test_streamed_lists_and_summary_equal_a_full_sort(preset):
    train, test = random_lists(60, 1), random_lists(31, 2)
    scorer = NeuronInstances("ig", preset, test_list=2).prepare(train, BUDGET)
    matrix = score_matrix(scorer, test).float()
    assert bool(torch.isinf(matrix).any()) == scorer.ranks == (preset == "reference")
    for budget in (1, scorer.bytes_held + 2 * 3 * scorer.bytes_per_query, BUDGET):
        scores, summary = stream_scores(scorer, test, torch.arange(31), 25, budget)
        for largest, index, score in (
            (True, scores.top_index, scores.top_score),
            (False, scores.bottom_index, scores.bottom_score),
        ):
            expected_index, expected_score = oracles.top_k(matrix, 25, largest)
            assert torch.equal(index, expected_index)
            assert torch.equal(score, expected_score)
        columns = summary.finalize(scorer.self_influence())
        finite = torch.isfinite(matrix).all(0)
        torch.testing.assert_close(columns["mean"][finite], matrix.double().mean(0)[finite], rtol=1e-6, atol=1e-7)
        assert torch.equal(columns["mean"].isnan(), ~finite)
        assert torch.equal(columns["max"], matrix.double().amax(0))
        votes = scores.top_index[:, :10][scores.top_score[:, :10] > -math.inf].tolist()
        assert columns["votes"].tolist() == [votes.count(i) for i in range(60)]
        if preset == "reference":
            ranks = torch.tensor([oracles_bridge.average_ranks(row) for row in matrix.tolist()], dtype=torch.float64)
            assert torch.equal(columns["mean_rank"], ranks.sum(0) / 31)
        else:
            assert "mean_rank" not in columns
    assert block_sizes(scorer, 31, 1) == (1, 1)


def test_summaries_with_ranks_merge_over_shards():
    train, test = random_lists(30, 1), random_lists(20, 2)
    scorer = NeuronInstances("ig", "reference").prepare(train, BUDGET)
    whole = stream_scores(scorer, test, torch.arange(20), 5, BUDGET)[1].finalize()
    merged = TrainSummary.empty(30)
    for start, stop in ((0, 3), (3, 3), (3, 20)):
        part = stream_scores(scorer, test.rows(start, stop), torch.arange(start, stop), 5, BUDGET)[1]
        merged = merged.merge(TrainSummary(**vars(part)))
    assert torch.equal(merged.finalize()["mean_rank"], whole["mean_rank"])
    assert float(whole["mean_rank"].sum()) == pytest.approx(30 * 31 / 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-math.inf, 0.0, -0.0, 1.0, 2.5]), min_size=1, max_size=12))
def test_average_ranks(values):
    assert average_ranks(torch.tensor([values]))[0].tolist() == oracles_bridge.average_ranks(values)


class Fixed:
    """A scorer that hands out a given matrix and may declare `ranks`."""

    bytes_per_query = bytes_per_row = bytes_held = 0

    def __init__(self, matrix: Tensor, ranks: bool) -> None:
        self.matrix, self.ranks, self.n_train = matrix, ranks, matrix.shape[1]

    def query(self, test: NeuronLists, index: Tensor) -> Tensor:
        return index

    def scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        return self.matrix[query, start:stop]


def stream_fixed(values: list[float], ranks: bool) -> tuple[InstanceScores, TrainSummary]:
    return stream_scores(Fixed(torch.tensor([values]), ranks), lists_of([[]]), torch.arange(1), 4, BUDGET)  # type: ignore[arg-type]


def test_minus_infinity_keeps_its_place_but_is_no_vote():
    scores, summary = stream_fixed([-math.inf, 1.0, -math.inf, -2.0], True)
    assert scores.top_index.tolist() == [[1, 3, 0, 2]]
    assert scores.top_score.tolist() == [[1.0, -2.0, -math.inf, -math.inf]]
    assert scores.bottom_index.tolist() == [[0, 2, 3, 1]]
    assert summary.votes.tolist() == [0, 1, 0, 1]
    assert summary.finalize()["mean_rank"].tolist() == [3.5, 1, 3.5, 2]


@pytest.mark.parametrize(("value", "ranks"), [(-math.inf, False), (math.inf, True), (math.nan, True)])
def test_other_scores_that_are_not_finite_stay_refused(value, ranks):
    with pytest.raises(UserError, match="NaN or infinite"):
        stream_fixed([0.0, value], ranks)


# -- IA-Neurons ----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(data=st.data(), train=SPLIT, top_k=st.integers(1, 7), dedup=st.booleans(), tests=st.integers(1, 3))
def test_ia_neurons_equal_the_loop(data, train, top_k, dedup, tests):
    k = data.draw(st.integers(0, 7))
    row = st.tuples(st.integers(-1, len(train) - 1), st.sampled_from([3.0, 1.0, 0.0, -1.0, -math.inf]))
    instances = data.draw(st.lists(st.lists(row, min_size=k, max_size=k), min_size=tests, max_size=tests))
    index = torch.tensor([[i for i, _ in one] for one in instances], dtype=torch.int64).view(tests, k)
    score = torch.tensor([[s for _, s in one] for one in instances]).view(tests, k)
    found = InstanceNeurons("gradsim", "ig", top_k, dedup).compose(index, score, lists_of(train))
    assert found.layer.shape == found.unit.shape == found.score.shape == (tests, min(top_k, k))
    assert found.layer.dtype == found.unit.dtype == torch.int32
    for one, layer, unit, value in zip(
        instances, found.layer.tolist(), found.unit.tolist(), found.score.tolist(), strict=True
    ):
        expected = oracles_bridge.instance_neurons(one, train, top_k, dedup)
        filled = [(neuron // NEURONS, neuron % NEURONS, s) for neuron, s in expected]
        padding = [(-1, -1, 0.0)] * (min(top_k, k) - len(filled))
        assert list(zip(layer, unit, value, strict=True)) == filled + padding


def test_without_dedup_the_list_does_not_go_on_below_the_top_k_instances():
    train = lists_of([[(5, 1.0)], [], [(5, 2.0)], [(6, 1.0)]])
    index, score = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    plain = InstanceNeurons("gradsim", top_k=3).compose(index, score, train)
    assert (plain.layer.tolist(), plain.unit.tolist()) == ([[1, 1, -1]], [[1, 1, -1]])
    distinct = InstanceNeurons("gradsim", top_k=3, dedup=True).compose(index, score, train)
    assert (distinct.unit.tolist(), distinct.score.tolist()) == ([[1, 2, -1]], [[4.0, 1.0, 0.0]])


# -- configuration -------------------------------------------------------------------------------------------------


def test_presets_and_what_overrides_them():
    paper, reference = NeuronInstances("ig"), NeuronInstances("ig", "reference", test_list=7)
    assert (paper.gain, paper.train_list, paper.test_list, paper.missing) == ("raw", 100, 100, "zero")
    assert (reference.gain, reference.train_list, reference.test_list, reference.missing) == ("zscore", 100, 7, "-inf")
    assert NeuronInstances("ig", missing=-math.inf).missing == "-inf"  # how the command line reads it
    assert [source.name for source in paper.sources] == ["ig"]
    assert [source.name for source in InstanceNeurons("influence").sources] == ["influence", "ig"]


def test_methods_satisfy_the_protocols_and_describe_themselves():
    method = NeuronInstances("ig", "reference")
    scorer = method.prepare(lists_of([[(1, 1.0)]]), BUDGET)
    assert isinstance(method, InstanceMethod)
    assert isinstance(scorer, InstanceScorer)
    described = scorer.describe()
    assert described["preset"] == "reference"
    assert described["missing"] == "-inf"
    assert described["sign"] == "none: a similarity, carries no loss sign"
    assert "influence" in str(InstanceNeurons("influence").describe()["sign"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"preset": "papers"}, "unknown preset 'papers' of na_instances; expected one of paper, reference"),
        ({"train_list": 0}, "train_list of a bridge is 0; expected at least 1"),
        ({"missing": "nan"}, "missing of na_instances is nan; expected zero or -inf"),
        ({"missing": 0.5}, "missing of na_instances is 0.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        NeuronInstances("ig", **options)


def test_scores_that_no_power_of_two_holds_are_refused():
    train = lists_of([[(1, 3.0)], [(1, 2000.0)]])
    with pytest.raises(UserError, match=r"as high as 2e\+03.*first: index 1.*use gain=zscore"):
        NeuronInstances("ig").prepare(train, BUDGET)
    assert NeuronInstances("ig", gain="zscore").prepare(train, BUDGET).n_train == 2
    with pytest.raises(UserError, match=r"the score of ig on train is NaN or infinite .*index 0"):
        NeuronInstances("ig").prepare(lists_of([[(1, math.nan)]]), BUDGET)


def test_lists_of_different_models_or_shapes_are_refused():
    lists = lists_of([[(1, 1.0)]])
    with pytest.raises(ValueError, match="expected one shape"):
        NeuronLists(lists.layer, lists.unit[:, :0], lists.score, LAYERS, NEURONS)
    scorer = NeuronInstances("ig").prepare(lists, BUDGET)
    with pytest.raises(ValueError, match="two models"):
        scorer.query(NeuronLists(lists.layer, lists.unit, lists.score, 3, NEURONS), torch.arange(1))
