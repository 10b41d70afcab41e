from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests import oracles
from tests.attribution.instance.cases import BUDGET, make_head, make_split
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.random_instances import RandomInstances
from twinlens.attribution.instance.stream import InstanceScores, block_sizes, concatenate, stream_scores
from twinlens.attribution.instance.train_summary import TrainSummary

METHODS = [
    GradientSimilarity(),
    GradientSimilarity("cosine"),
    GradientSimilarity(dtype="float32"),
    Influence(solver="direct"),
    Influence(solver="dual"),
    RandomInstances([3]),
]


@dataclass
class FixedScorer:
    """Hands out a given score matrix; `bytes_per_query` and `bytes_per_row` steer the blocks."""

    matrix: Tensor
    bytes_per_query: int = 0
    bytes_per_row: int = 0
    bytes_held: int = 0
    shapes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def n_train(self) -> int:
        return self.matrix.shape[1]

    def describe(self) -> dict[str, object]:
        return {}

    def query(self, test: HeadInputs, index: Tensor) -> Tensor:
        return test.labels

    def scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        self.shapes.append((len(query), stop - start))
        return self.matrix[query, start:stop]

    def self_influence(self) -> None:
        return None


def numbered_tests(n: int) -> HeadInputs:
    """Tests whose label says which row of a fixed matrix is theirs."""
    return HeadInputs(torch.zeros(n, 1), torch.arange(n), torch.nn.Identity())


def stream_fixed(matrix: Tensor, top_k: int, rows: int, tests: int) -> tuple[InstanceScores, TrainSummary]:
    """Stream a matrix in blocks of about the given size."""
    budget = 2**20
    scorer = FixedScorer(matrix, budget // 2 // tests, budget // 2 // rows)
    return stream_scores(scorer, numbered_tests(len(matrix)), torch.arange(len(matrix)), top_k, budget)


def assert_same(a: InstanceScores, b: InstanceScores) -> None:
    for name in ("index", "top_index", "bottom_index", "top_score", "bottom_score"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


# Few distinct values make ties common; the extremes and both zeros are what the packing of floats must survive.
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0]),
    st.floats(-(2**20), 2**20, width=32),
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), tests=st.integers(1, 4), train=st.integers(1, 25), k=st.integers(1, 30))
def test_streaming_equals_a_full_sort(data, tests, train, k):
    values = data.draw(st.lists(VALUES, min_size=tests * train, max_size=tests * train))
    matrix = torch.tensor(values, dtype=torch.float32).view(tests, train)
    rows, blocks = data.draw(st.integers(1, train)), data.draw(st.integers(1, tests))
    scores, summary = stream_fixed(matrix, k, rows, blocks)
    for index, score, largest in (
        (scores.top_index, scores.top_score, True),
        (scores.bottom_index, scores.bottom_score, False),
    ):
        expected_index, expected_score = oracles.top_k(matrix, k, largest)
        assert torch.equal(index, expected_index)
        assert torch.equal(score, expected_score)
    torch.testing.assert_close(summary.sum, matrix.double().sum(0), rtol=1e-12, atol=1e-9)
    assert torch.equal(summary.max, matrix.double().amax(0))
    assert summary.votes.tolist() == torch.bincount(scores.top_index[:, :10].flatten(), minlength=train).tolist()


def test_blocks_are_as_small_as_asked_for():
    """Guards the property test above: were the blocks always whole, it would show nothing about merging."""
    budget = 2**20
    scorer = FixedScorer(torch.zeros(9, 50), budget // 2 // 2, budget // 2 // 7)
    stream_scores(scorer, numbered_tests(9), torch.arange(9), 3, budget)
    assert max(shape[0] for shape in scorer.shapes) <= 2
    assert max(shape[1] for shape in scorer.shapes) <= 7
    assert sum(a * b for a, b in scorer.shapes) == 9 * 50


def test_ties_go_to_the_lower_row_in_both_lists():
    matrix = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0, 1.0]])
    for rows in (1, 2, 4, 6):
        scores, _ = stream_fixed(matrix, 4, rows, 1)
        assert scores.top_index.tolist() == [[1, 2, 4, 0]]
        assert scores.bottom_index.tolist() == [[0, 3, 5, 1]]


def test_float64_noise_does_not_reorder_equal_rows():
    noise = torch.tensor([0.0, 1e-15, -1e-15, 2e-15], dtype=torch.float64)
    scores, _ = stream_fixed((0.3 + noise)[None], 4, 4, 1)
    assert scores.top_index.tolist() == scores.bottom_index.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("method", METHODS, ids=["dot", "cosine", "float32", "direct", "dual", "random"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_results_do_not_depend_on_the_blocks(method, kind):
    head = make_head(kind)
    train, test = make_split(head, 23), make_split(head, 7, seed=2)
    # Exact duplicates: their order must not depend on where in a block they fall.
    train.features[[5, 11, 20]] = train.features[2].clone()
    train.labels[[5, 11, 20]] = train.labels[2].clone()
    scorer = method.prepare(train, BUDGET)
    index = torch.arange(7)
    whole, summary = stream_scores(scorer, test, index, 8, BUDGET)
    pair = 80
    for budget in (1, 2 * 100 * pair, 2 * (3 * scorer.bytes_per_row + 300 * pair)):
        assert block_sizes(scorer, 7, budget) != (7, 23)
        parts, other = stream_scores(scorer, test, index, 8, budget)
        torch.testing.assert_close(parts.top_score, whole.top_score, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(other.sum, summary.sum, rtol=1e-5, atol=1e-7)
        if getattr(method, "dtype", "float64") == "float64":
            assert torch.equal(parts.top_index, whole.top_index)
            assert torch.equal(parts.bottom_index, whole.bottom_index)
            assert torch.equal(other.votes, summary.votes)


@pytest.mark.parametrize("method", METHODS, ids=["dot", "cosine", "float32", "direct", "dual", "random"])
def test_results_do_not_depend_on_order_or_sharding_of_the_tests(method):
    head = make_head("mlp")
    train, test = make_split(head, 15), make_split(head, 9, seed=2)
    scorer = method.prepare(train, BUDGET)
    whole, summary = stream_scores(scorer, test, torch.arange(9), 5, BUDGET)
    shards = [torch.tensor([8, 1, 4, 0]), torch.tensor([2, 7, 3, 6, 5]), torch.tensor([], dtype=torch.int64)]
    parts = [stream_scores(scorer, HeadInputs(test.features[i], test.labels[i], head), i, 5, BUDGET) for i in shards]
    joined = concatenate([scores for scores, _ in parts], 5)
    order = joined.index.argsort()
    assert torch.equal(joined.top_index[order], whole.top_index)
    assert torch.equal(joined.bottom_index[order], whole.bottom_index)
    torch.testing.assert_close(joined.top_score[order], whole.top_score, rtol=1e-5, atol=1e-7)
    merged = parts[0][1].merge(parts[1][1]).merge(parts[2][1])
    assert merged.n_test == summary.n_test == 9
    torch.testing.assert_close(merged.sum, summary.sum, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(merged.max, summary.max, rtol=1e-5, atol=1e-7)
    assert torch.equal(merged.votes, summary.votes)


def test_fewer_train_examples_than_the_list_is_long():
    head = make_head("linear")
    train, test = make_split(head, 3), make_split(head, 2, seed=2)
    scores, summary = stream_scores(GradientSimilarity().prepare(train, BUDGET), test, torch.arange(2), 100, BUDGET)
    assert scores.top_index.shape == scores.bottom_index.shape == (2, 3)
    assert torch.equal(scores.top_index, scores.bottom_index.flip(1))
    assert summary.votes.tolist() == [2, 2, 2]


def test_no_tests_give_empty_lists_and_a_neutral_summary():
    scorer = GradientSimilarity().prepare(make_split(make_head("linear"), 4), BUDGET)
    nothing = make_split(make_head("linear"), 0)
    scores, summary = stream_scores(scorer, nothing, torch.arange(0), 3, BUDGET)
    assert len(scores) == 0
    assert scores.top_index.shape == (0, 3)
    some = TrainSummary(torch.ones(4).double(), -torch.ones(4).double(), torch.ones(4, dtype=torch.int64), 2)
    for name in ("sum", "max", "votes"):
        assert torch.equal(getattr(summary.merge(some), name), getattr(some, name))
    with pytest.raises(ValueError, match="at least one test"):
        summary.finalize()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_scores_are_refused_with_the_tests_rows(value):
    matrix = torch.zeros(4, 6)
    matrix[2, 5] = value
    with pytest.raises(UserError, match=r"NaN or infinite for 1 example\(s\) \(index 12\)"):
        stream_scores(FixedScorer(matrix), numbered_tests(4), torch.tensor([10, 11, 12, 13]), 3, BUDGET)


def test_finalize_gives_the_stored_columns():
    _, summary = stream_fixed(torch.tensor([[1.0, -2.0], [3.0, -4.0]]), 1, 2, 2)
    columns = summary.finalize(torch.tensor([5.0, 6.0], dtype=torch.float64))
    assert {name: column.tolist() for name, column in columns.items()} == {
        "index": [0, 1],
        "mean": [2.0, -3.0],
        "max": [3.0, -2.0],
        "votes": [2, 0],
        "self_influence": [5.0, 6.0],
    }
    assert torch.isnan(summary.finalize()["self_influence"]).all()
