"""Tests put together and clusters of what carries them, against loops."""

from __future__ import annotations

import pytest
import torch

from twinlens.attribution.example_models import BUDGET
from twinlens.attribution.gradients.layout import row_layout
from twinlens.attribution.gradients.row_forms import DENSE, RowForm
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.small_forms import Factored, Half
from twinlens.attribution.instance.bm25 import BM25
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.groups import ALIKE, clusters_of, grouped
from twinlens.attribution.instance.inputs import HeadInputs, TextInputs
from twinlens.attribution.instance.tracin_rows import CheckpointRows, TracInRowScorer

MEMBERS = [torch.tensor([0, 2, 3]), torch.tensor([1])]


def rows(n: int, seed: int, form: RowForm = DENSE) -> GradientRows:
    drawn = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    layout = row_layout(["one", "two"], [(1, 2), (2, 2)])
    return GradientRows(layout, tuple(form.encode(layout, [drawn])), form=form)


@pytest.mark.parametrize("form", [DENSE, Half(), Factored(rank=1)])
def test_scores_of_a_group_are_the_mean_of_those_of_its_tests(form: RowForm) -> None:
    train, tests = rows(7, 0, form), rows(4, 1, form)
    scorer = GradientSimilarity(params="all", projection="random").prepare(train, BUDGET)
    each = scorer.scores(scorer.query(tests, torch.arange(4)), 0, 7)
    found = scorer.scores(scorer.query(grouped(tests, MEMBERS), torch.arange(2)), 0, 7)
    torch.testing.assert_close(found, torch.stack([each[own].mean(0) for own in MEMBERS]))
    along = TracInRowScorer(CheckpointRows(((train, 0.1), (rows(7, 2), 0.05))), {}, BUDGET)
    tests_along = CheckpointRows(((tests, 0.1), (rows(4, 3), 0.05)))
    each = along.scores(along.query(tests_along, torch.arange(4)), 0, 7)
    found = along.scores(along.query(grouped(tests_along, MEMBERS), torch.arange(2)), 0, 7)
    torch.testing.assert_close(found, torch.stack([each[own].mean(0) for own in MEMBERS]))


def test_a_cosine_is_that_with_the_gradient_of_the_group() -> None:
    train, tests = rows(7, 0), rows(4, 1)
    scorer = GradientSimilarity("cosine", params="all", projection="random").prepare(train, BUDGET)
    found = scorer.scores(scorer.query(grouped(tests, MEMBERS), torch.arange(2)), 0, 7)
    for group, own in enumerate(MEMBERS):
        whole = tests.groups[0][own].sum(0)  # of the sum of φ, or of their mean
        for row in range(7):
            assert float(found[group, row]) == pytest.approx(
                float(torch.cosine_similarity(whole, train.groups[0][row], dim=0)), abs=1e-6
            )


def test_words_add_up_and_states_are_averaged() -> None:
    texts = TextInputs(["red apple", "green pear", "red pear", "blue plum"])
    documents = TextInputs(["an apple is red", "a pear is green", "plums are blue", "red pear tree"])
    scorer = BM25().prepare(documents, BUDGET)
    each = scorer.scores(scorer.query(texts, torch.arange(4)), 0, 4)
    found = scorer.scores(scorer.query(grouped(texts, MEMBERS), torch.arange(2)), 0, 4)
    torch.testing.assert_close(found, torch.stack([each[own].sum(0) for own in MEMBERS]))
    states = torch.randn(4, 3)
    both = grouped(HeadInputs(states, torch.tensor([5, 6, 7, 8]), torch.nn.Linear(3, 9)), MEMBERS)
    torch.testing.assert_close(both.features, torch.stack([states[own].mean(0) for own in MEMBERS]))
    assert both.labels.tolist() == [5, 6]
    with pytest.raises(TypeError, match="cannot be put together"):
        grouped(states, MEMBERS)


def naive_clusters(pulls: torch.Tensor, scores: torch.Tensor) -> list[int]:
    clusters = [[row] for row in range(len(scores)) if scores[row] > 0]

    def alike(one: list[int], two: list[int]) -> float:
        pairs = [float(torch.cosine_similarity(pulls[a].double(), pulls[b].double(), dim=0)) for a in one for b in two]
        return sum(pairs) / len(pairs)

    while len(clusters) > 1:
        n = len(clusters)
        best, first, second = max((alike(clusters[a], clusters[b]), -a, -b) for a in range(n) for b in range(a + 1, n))
        if best < ALIKE:
            break
        clusters[-first] += clusters.pop(-second)
    clusters.sort(key=lambda rows: -sum(float(scores[row]) for row in rows))
    found = [-1] * len(scores)
    for number, own in enumerate(clusters):
        for row in own:
            found[row] = number
    return found


@pytest.mark.parametrize("seed", range(4))
def test_clusters_equal_a_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pulls, scores = torch.randn(14, 3, generator=generator), torch.randn(14, generator=generator) + 0.5
    assert clusters_of(pulls, scores).tolist() == naive_clusters(pulls, scores)


def test_what_pulls_on_one_test_or_on_none() -> None:
    assert clusters_of(torch.tensor([[0.4], [0.1], [-0.2]]), torch.tensor([0.4, 0.1, -0.2])).tolist() == [0, 0, -1]
    assert clusters_of(torch.zeros(2, 3), torch.zeros(2)).tolist() == [-1, -1]
