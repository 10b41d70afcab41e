"""Similarities that know no loss: hidden states and words."""

from __future__ import annotations

import pytest
import torch

from tests import oracles
from tests.attribution.instance.cases import (
    BUDGET,
    choice_head,
    make_choices,
    make_head,
    make_split,
    prepared_scores,
    score_matrix,
)
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.bm25 import BM25
from twinlens.attribution.instance.inputs import HeadInputs, TextInputs
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer
from twinlens.attribution.instance.similarity import HiddenSimilarity
from twinlens.attribution.instance.stream import stream_scores

FORMULAS = {
    "cosine": lambda t, i: float(torch.nn.functional.cosine_similarity(t, i, dim=0)),
    "dot": lambda t, i: float(t @ i),
    "euclidean": lambda t, i: -float((t - i).norm()),
}


@pytest.mark.parametrize("choices", [False, True])
@pytest.mark.parametrize("measure", FORMULAS)
def test_hidden_similarity_equals_its_formula(measure, choices):
    head = choice_head("mlp") if choices else make_head("mlp")
    make = make_choices if choices else make_split
    train, test = make(head, 9), make(head, 4, seed=2)
    states = [
        [x[head(x).flatten().argmax()].double() if choices else x.double() for x in split.features]
        for split in (test, train)
    ]
    expected = torch.tensor([[FORMULAS[measure](t, i) for i in states[1]] for t in states[0]], dtype=torch.float64)
    scorer = HiddenSimilarity(measure).prepare(train, BUDGET)
    torch.testing.assert_close(score_matrix(scorer, test), expected, rtol=1e-8, atol=1e-10)
    assert isinstance(HiddenSimilarity(measure), InstanceMethod)
    assert isinstance(scorer, InstanceScorer)
    assert "no loss sign" in str(scorer.describe()["sign"])
    assert scorer.self_influence() is None
    whole, _ = stream_scores(scorer, test, torch.arange(4), 5, BUDGET)
    assert torch.equal(stream_scores(scorer, test, torch.arange(4), 5, 1)[0].top_index, whole.top_index)


def test_copies_have_distance_zero():
    head = make_head("linear", hidden=64)
    train = make_split(head, 20, hidden=64)
    train.features.add_(100)  # lengths far above the distances
    scores = prepared_scores(HiddenSimilarity("euclidean"), train, train)
    assert torch.equal(scores.diagonal(), torch.zeros(20, dtype=torch.float64))
    assert float(scores.flatten()[1]) < -1


def test_a_vanishing_state_is_similar_to_nothing():
    train = make_split(make_head("linear"), 3)
    train.features[1] = 0
    assert prepared_scores(HiddenSimilarity(), train, train)[:, 1].tolist() == [0, 0, 0]


def test_labels_are_not_read():
    train = make_split(make_head("linear"), 3)
    unlabelled = HeadInputs(train.features, torch.full((3,), -1), train.head)
    assert prepared_scores(HiddenSimilarity(), unlabelled, unlabelled).shape == (3, 3)
    train.features[2, 0] = float("nan")
    with pytest.raises(UserError, match=r"head input of train examples.*index 2"):
        HiddenSimilarity().prepare(train, BUDGET)


# -- BM25 ----------------------------------------------------------------------------------------------------------

TRAIN = [
    "The river floods the old town",
    "old old river",
    "",
    "A dam protects the town, the dam holds.",
    "nothing shared here",
    "old old river",
    "the of and",
]
TEST = ["Does the dam hold the old river?", "old old town", "unknown", ""]


@pytest.mark.parametrize("stopwords", ["english", "none"])
@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.0)])
def test_bm25_equals_its_formula(k1, b, stopwords):
    method = BM25(k1=k1, b=b, stopwords=stopwords)
    documents = method.words(TRAIN)
    expected = [oracles.bm25(documents, words, k1, b) for words in method.words(TEST)]
    scorer = method.prepare(TextInputs(TRAIN), BUDGET)
    actual = score_matrix(scorer, TextInputs(TEST))
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert float(actual.max()) > 0
    assert torch.equal(actual[:, 1], actual[:, 5])
    assert isinstance(method, InstanceMethod)
    assert isinstance(scorer, InstanceScorer)
    assert scorer.self_influence() is None


def test_bm25_streams_in_any_blocks():
    words = [f"w{number}" for number in range(20)]
    generator = torch.Generator().manual_seed(0)

    def texts(n):
        return [" ".join(words[int(i)] for i in torch.randint(0, 20, (8,), generator=generator)) for _ in range(n)]

    train, test = TextInputs(texts(40)), TextInputs(texts(6))
    scorer = BM25().prepare(train, BUDGET)
    whole, _ = stream_scores(scorer, test, torch.arange(6), 5, BUDGET)
    parts, _ = stream_scores(scorer, test, torch.arange(6), 5, 1)
    assert torch.equal(parts.top_index, whole.top_index)
    assert "no loss sign" in str(scorer.describe()["sign"])


def test_bm25_without_a_word_is_refused():
    with pytest.raises(UserError, match="None of the 2 train texts has a word"):
        BM25().prepare(TextInputs(["the of", ""]), BUDGET)
    with pytest.raises(UserError, match="expected k1 at least 0"):
        BM25(b=2.0)
