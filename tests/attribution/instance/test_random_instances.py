from __future__ import annotations

import pytest
import torch

from tests.attribution.instance.cases import BUDGET, make_head, make_split
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer
from twinlens.attribution.instance.random_instances import RandomInstances
from twinlens.attribution.instance.stream import stream_scores


def scores_of(seed: int, index: list[int], n_train: int) -> torch.Tensor:
    scorer = RandomInstances([seed]).prepare(make_split(make_head("linear"), n_train), BUDGET)
    return scorer.scores(scorer.query(make_split(make_head("linear"), len(index)), torch.tensor(index)), 0, n_train)


def test_scores_depend_on_seed_and_rows_alone():
    many = scores_of(0, [5, 3, 400, 7], 50)
    assert torch.equal(scores_of(0, [3], 50)[0], many[1])
    assert torch.equal(scores_of(0, [3], 20)[0], many[1, :20])
    assert not torch.equal(scores_of(1, [3], 50)[0], many[1])
    scorer = RandomInstances([0]).prepare(make_split(make_head("linear"), 50), BUDGET)
    assert torch.equal(
        scorer.scores(scorer.query(make_split(make_head("linear"), 1), torch.tensor([3])), 20, 33)[0], many[1, 20:33]
    )


def test_lists_are_without_replacement():
    train = make_split(make_head("linear"), 300)
    scorer = RandomInstances([4]).prepare(train, BUDGET)
    lists, _ = stream_scores(scorer, make_split(train.head, 20), torch.arange(20), 300, BUDGET)
    assert torch.equal(lists.top_index.sort(1).values, torch.arange(300).expand(20, 300))
    assert len({tuple(row) for row in lists.top_index.tolist()}) == 20


def test_scores_are_uniform_and_independent():
    scores = scores_of(2, list(range(400)), 500).double()
    assert float(scores.min()) >= 0
    assert float(scores.max()) < 1
    # Standard errors of the mean, the variance and the correlations over 200 000 draws; five of them is 1 in 10⁶.
    assert float(scores.mean()) == pytest.approx(0.5, abs=5 * (1 / 12 / 200_000) ** 0.5)
    assert float(scores.var()) == pytest.approx(1 / 12, abs=5 * (1 / 180 / 200_000) ** 0.5)
    counts = torch.histc(scores, bins=20, min=0, max=1)
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 55  # χ² with 19 degrees of freedom, p ≈ 2e-5
    centred = (scores - 0.5) * 12**0.5
    for a, b in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1]), (centred[1:, 1:], centred[:-1, :-1])):
        assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5
    top = scores.argmax(1)
    assert len(torch.unique(top)) == pytest.approx(500 * (1 - (1 - 1 / 500) ** 400), abs=40)


def test_one_method_per_seed():
    method = RandomInstances([7, 8], top_k=5)
    assert isinstance(method, InstanceMethod)
    with pytest.raises(ValueError, match="call for_seed first"):
        method.prepare(make_split(make_head("linear"), 4), BUDGET)
    single = method.for_seed(8)
    assert single.top_k == 5
    scorer = single.prepare(make_split(make_head("linear"), 4), BUDGET)
    assert isinstance(scorer, InstanceScorer)
    assert scorer.self_influence() is None
    assert scorer.describe()["seed"] == 8
    assert "no loss sign" in str(scorer.describe()["sign"])


def test_unlabelled_tests_are_served():
    train = make_split(make_head("linear"), 4)
    scorer = RandomInstances([0]).prepare(train, BUDGET)
    unlabelled = HeadInputs(train.features, torch.full((4,), -1), train.head)
    assert len(stream_scores(scorer, unlabelled, torch.arange(4), 2, BUDGET)[0]) == 4
