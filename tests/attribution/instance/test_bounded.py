"""Inner products streamed along the bound of their lengths, against all scores sorted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests import oracles
from tests.attribution.instance.cases import BUDGET, choice_head, make_choices, make_head, make_split, score_matrix
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance import bounded
from twinlens.attribution.instance.bounded import InnerProductScorer, bounded_scores
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.stream import stream_scores

KINDS = ["linear", "linear_bias", "mlp", "choices"]


def make_inputs(kind: str, n: int, spread: float, seed: int) -> HeadInputs:
    """Examples whose gradients differ in length by up to 10^spread, twins and vanishing gradients among them."""
    is_choice = kind == "choices"
    inputs = make_choices(choice_head("linear"), n, seed) if is_choice else make_split(make_head(kind), n, seed)
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** (spread * torch.rand(n, generator=generator))
    inputs.features.mul_(scale.view(-1, *[1] * (inputs.features.dim() - 1)) / scale.max())
    inputs.features[n // 2] = inputs.features[0].clone()
    inputs.labels[n // 2] = inputs.labels[0].clone()
    inputs.features[n // 3] = 0.0
    return inputs


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(["float64", "float32"]),
    n_train=st.integers(1, 60),
    n_tests=st.integers(1, 9),
    spread=st.floats(0, 4),
    k=st.integers(1, 12),
    rows=st.integers(1, 60),
    seed=st.integers(1, 1000),
)
def test_equals_a_full_sort(kind, dtype, n_train, n_tests, spread, k, rows, seed):
    train, test = make_inputs(kind, n_train, spread, seed), make_inputs(kind, n_tests, spread, seed + 1)
    scorer = GradientSimilarity(dtype=dtype).prepare(train, BUDGET)
    assert isinstance(scorer, InnerProductScorer)
    index = torch.arange(n_tests)
    scores, summary = bounded_scores(scorer, scorer.query(test, index), index, k, rows)
    matrix = score_matrix(scorer, test)
    largest = matrix.abs().amax(1, keepdim=True).float()
    for found_index, found_score, highest in (
        (scores.top_index, scores.top_score, True),
        (scores.bottom_index, scores.bottom_score, False),
    ):
        expected_index, expected_score = oracles.top_k(matrix.float(), k, highest)
        if dtype == "float64":
            assert torch.equal(found_index, expected_index)
        difference = (found_score - expected_score).abs()
        assert bool((difference <= 1e-5 * largest).all())
    # a product whose terms nearly cancel keeps the rounding of its terms
    rounding = 1e-30 if dtype == "float64" else 1e-7 * float(matrix.abs().max()) + 1e-30
    total = matrix.abs().sum(0)
    assert bool(((summary.sum - matrix.double().sum(0)).abs() <= 1e-5 * total + rounding).all())
    assert bool(((summary.max - matrix.float().amax(0)).abs() <= 1e-5 * matrix.abs().amax(0) + rounding).all())
    assert summary.votes.sum() == n_tests * min(k, 10, n_train)
    assert summary.n_test == n_tests


@pytest.mark.parametrize(("spread", "fewer"), [(5.0, True), (0.0, False)])
def test_most_pairs_are_left_out_where_few_gradients_are_long(monkeypatch, spread, fewer):
    pairs = 0
    gram = bounded.gram

    def counted(left: bounded.Gradients, right: bounded.Gradients) -> Tensor:
        nonlocal pairs
        pairs += len(left[0].inputs) * len(right[0].inputs)
        return gram(left, right)

    monkeypatch.setattr(bounded, "gram", counted)
    train, test = make_inputs("linear", 8000, spread, 3), make_inputs("linear", 200, spread, 4)
    stream_scores(GradientSimilarity().prepare(train, BUDGET), test, torch.arange(200), 5, 2**24)
    assert (pairs < 0.4 * 8000 * 200) == fewer
    assert pairs <= 8000 * 200


def test_cosines_have_no_such_bound():
    scorer = GradientSimilarity("cosine").prepare(make_inputs("linear", 5, 0.0, 1), BUDGET)
    assert not isinstance(scorer, InnerProductScorer)


def test_a_product_that_overflows_is_refused_with_its_test():
    train, test = make_inputs("linear", 5, 0.0, 1), make_inputs("linear", 3, 0.0, 2)
    train.features[4], test.features[1] = 1e30, 1e30
    scorer = GradientSimilarity(dtype="float32").prepare(train, BUDGET)
    with pytest.raises(UserError, match=r"instance score is NaN or infinite for 1 example\(s\) \(index 8\)"):
        stream_scores(scorer, test, torch.tensor([7, 8, 9]), 2, BUDGET)
