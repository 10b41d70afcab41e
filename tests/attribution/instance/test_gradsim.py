from __future__ import annotations

import pytest
import torch

from tests import oracles
from tests.attribution.instance.cases import BUDGET, make_head, make_split, prepared_scores
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer


@pytest.mark.parametrize("params", ["weight", "head"])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("kind", ["linear", "linear_bias", "mlp", "mlp_no_bias"])
def test_equals_per_example_autograd(kind, similarity, params):
    head = make_head(kind)
    train, test = make_split(head, 9), make_split(head, 4, seed=2)
    left, right = (
        oracles.head_gradients(head, split.features, split.labels, weights_only=params == "weight")
        for split in (test, train)
    )
    expected = torch.tensor([[float(g @ h) for h in right] for g in left], dtype=torch.float64)
    if similarity == "cosine":
        expected = expected / left.norm(dim=1)[:, None] / right.norm(dim=1)
    actual = prepared_scores(GradientSimilarity(similarity, params), train, test)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_float32_products_agree(kind):
    head = make_head(kind, hidden=64, classes=4)
    train, test = (make_split(head, n, seed=n, hidden=64, classes=4) for n in (50, 7))
    exact = prepared_scores(GradientSimilarity(), train, test)
    fast = prepared_scores(GradientSimilarity(dtype="float32"), train, test)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("memory_budget", [1, BUDGET])
def test_self_influence_is_each_examples_own_score(memory_budget):
    head = make_head("mlp")
    train = make_split(head, 6)
    for similarity in ("dot", "cosine"):
        method = GradientSimilarity(similarity)
        own = method.prepare(train, memory_budget).self_influence()
        torch.testing.assert_close(own, prepared_scores(method, train, train).diagonal(), rtol=1e-12, atol=1e-14)


def test_cosine_of_a_vanishing_gradient_is_zero():
    head = make_head("linear")
    train = make_split(head, 3)
    features = train.features.clone()
    features[1] = 0
    train = HeadInputs(features, train.labels, head)
    scorer = GradientSimilarity("cosine").prepare(train, BUDGET)
    scores = prepared_scores(GradientSimilarity("cosine"), train, make_split(head, 2, seed=3))
    assert torch.equal(scores[:, 1], torch.zeros(2, dtype=torch.float64))
    assert scorer.self_influence().tolist() == [1, 0, 1]


def test_satisfies_the_protocols():
    method = GradientSimilarity()
    scorer = method.prepare(make_split(make_head("linear"), 3), BUDGET)
    assert isinstance(method, InstanceMethod)
    assert isinstance(scorer, InstanceScorer)
    assert "positive" in str(scorer.describe()["sign"])


def test_unlabelled_examples_are_refused_with_their_rows():
    head = make_head("linear")
    train, test = make_split(head, 3), make_split(head, 3)
    test.labels[1] = -1
    scorer = GradientSimilarity().prepare(train, BUDGET)
    with pytest.raises(UserError, match=r"1 test example\(s\) have no label within 0 … 2 \(index 8\).*predicted"):
        scorer.query(test, torch.tensor([7, 8, 9]))


def test_infinite_train_features_are_refused_with_their_rows():
    train = make_split(make_head("linear"), 4)
    train.features[2, 0] = float("nan")
    with pytest.raises(UserError, match=r"head input of train examples.*index 2"):
        GradientSimilarity().prepare(train, BUDGET)
