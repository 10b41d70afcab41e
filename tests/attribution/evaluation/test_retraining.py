from __future__ import annotations

import math

import pytest
import torch

from tests import oracles_evaluation as oracles
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.refits import Reference
from twinlens.attribution.evaluation.retraining import Retraining
from twinlens.attribution.evaluation.subsets import label_mix
from twinlens.attribution.evaluation.train_ranking import random_ranking

RANKINGS = {"gradsim": torch.randperm(40, generator=torch.Generator().manual_seed(0)), "bm25": torch.arange(40)}
ORIGINAL = torch.tensor([0, 1, 2, 2, 1, 0, 0])
LABEL = torch.tensor([0, 1, 1, 2, -1, 0, 2])


def fake_fit(rows: torch.Tensor, seed: int) -> torch.Tensor:
    """A 'model' whose predictions tell the rows and the seed it was fitted with."""
    return torch.randint(3, (7,), generator=torch.Generator().manual_seed(1000 * int(rows.sum()) + seed))


def test_every_cell_equals_a_naive_loop():
    evaluation = Retraining(fractions=(10, 25), seeds=(3, 5))
    results = evaluation.evaluate(RANKINGS, fake_fit, Reference(ORIGINAL, LABEL))
    assert len(results) == 2 * (2 * 2 + 1) * 2
    for result in results:
        size = 4 if result.k == 10 else 10
        runs = []
        for seed in (3, 5):
            if result.group == "random":
                rows = random_ranking(40, seed)[:size]
            elif result.group == "most":
                rows = RANKINGS[result.method][:size]
            else:
                rows = RANKINGS[result.method][-size:]
            predicted = fake_fit(rows, seed).tolist()
            runs.append(
                oracles.retrained_accuracy(predicted, LABEL.tolist())
                if result.metric == "accuracy"
                else oracles.preserved(predicted, ORIGINAL.tolist())
            )
        assert (result.value, result.stderr) == pytest.approx(oracles.mean_and_error(runs))
        assert result.n == (6 if result.metric == "accuracy" else 7)
        assert result.variant == ""


def test_random_cells_are_shared_and_named_after_the_random_method():
    asked = []

    def fit(rows, seed):
        asked.append((rows.tolist(), seed))
        return ORIGINAL

    results = Retraining(groups=("random",), rank_by="votes").evaluate(RANKINGS, fit, Reference(ORIGINAL, LABEL))
    assert [seed for _, seed in asked] == [0, 1, 2]
    assert {(r.method, r.group, r.variant) for r in results} == {("random_instances", "random", "rank_by=votes")}
    assert [r.value for r in results if r.metric == "preserved"] == [1.0]


def test_folded_labels_count_folded_predictions_but_preserved_ones_do_not():
    label = torch.tensor([0, 1, 1, 0])  # entailment or not
    reference = Reference(torch.tensor([0, 1, 2, 0]), label, fold=torch.tensor([0, 1, 1]))

    def fit(rows, seed):
        return torch.tensor([0, 2, 2, 1])

    found = {
        r.metric: r.value
        for r in Retraining(seeds=(0,), groups=("most",)).evaluate({"a": torch.arange(9)}, fit, reference)
    }
    assert found == {"accuracy": 0.75, "preserved": 0.5}


def test_without_labels_there_is_no_accuracy():
    reference = Reference(ORIGINAL, torch.full((7,), -1))
    metrics = {r.metric for r in Retraining().evaluate(RANKINGS, fake_fit, reference)}
    assert metrics == {"preserved"}


def test_what_it_needs():
    assert "fit=true" in Retraining().missing(Available(instance=("gradsim",)))
    only_random = Available(instance=("random_instances",), with_seeds=frozenset({"random_instances"}), fits=True)
    assert "instance method" in Retraining().missing(only_random)
    assert Retraining().missing(Available(instance=("gradsim",), fits=True)) == ""


def test_every_cell_says_its_labels_and_has_a_control_with_the_same_ones():
    train_label = torch.randint(-1, 3, (40,), generator=torch.Generator().manual_seed(2))
    asked: list[tuple[list[int], int]] = []

    def fit(rows, seed):
        asked.append((rows.tolist(), seed))
        return fake_fit(rows, seed)

    names = ["yes", "no", "maybe"]
    reference = Reference(ORIGINAL, LABEL, train_label=train_label, label_names=names)
    evaluation = Retraining(fractions=(25,), seeds=(3, 5), groups=("most", "least", "random", "same_labels"))
    rows = evaluation.evaluate(RANKINGS, fit, reference)
    mixes = {
        (r.method, r.group, r.reference_group or r.metric): r.value
        for r in rows if r.metric in ("label_entropy", "label_count")
    }  # fmt: skip
    for method, ranking in RANKINGS.items():
        for group, chosen in (("most", ranking[:10]), ("least", ranking[-10:])):
            labels = [int(train_label[row]) for row in chosen]
            counts = [labels.count(number) for number in range(3)]
            shares = [count / sum(counts) for count in counts if count]
            assert [mixes[method, group, name] for name in names] == counts
            assert mixes[method, group, "label_entropy"] == pytest.approx(-sum(p * math.log(p) for p in shares))
            (row,) = (r for r in rows if (r.metric, r.method, r.group) == ("preserved", method, group))
            assert not row.control
            (beside,) = (
                r for r in rows if (r.metric, r.group, r.reference_group) == ("preserved", group, method)
            )  # fmt: skip
            assert (beside.method, beside.variant, beside.control) == ("random_instances", "control=same_labels", True)
    drawn = asked[-2 * 2 * 2 :]  # two methods, two ends, two seeds
    for (chosen, _), (method, end) in zip(
        drawn, [(m, e) for m in RANKINGS for e in ("most", "least") for _ in range(2)], strict=True
    ):
        like = RANKINGS[method][:10] if end == "most" else RANKINGS[method][-10:]
        assert sorted(train_label[chosen].tolist()) == sorted(train_label[like].tolist())
        assert len(set(chosen)) == 10
    assert drawn[0][0] != drawn[1][0]  # each seed its own draw
    assert len(asked) == len(evaluation.fits(RANKINGS, train_label)) == len(evaluation.expected_fits(40, 2))
    assert label_mix(torch.tensor([0]), torch.tensor([-1]), 2)[1] == 0  # no label at all
