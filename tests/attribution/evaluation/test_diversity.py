from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import oracles_evaluation as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.diversity import METRICS, Diversity, TrainFacts, mean_cosine
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.regression import regression
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.retraining import Retraining
from twinlens.attribution.evaluation.subsets import SubsetGrid

GENERATOR = torch.Generator().manual_seed(0)
RANKINGS = {name: torch.randperm(30, generator=GENERATOR) for name in "abc"}
TOKENS = [torch.randint(50, (3 + row % 5,), generator=GENERATOR).tolist() for row in range(30)]
TRAIN = TrainFacts(
    hidden=torch.randn(30, 6, generator=GENERATOR) + 1,
    loss=torch.rand(30, generator=GENERATOR),
    tokens=TOKENS,
    length=torch.tensor([float(len(tokens)) for tokens in TOKENS]),
)


def test_similarity_of_all_pairs_in_linear_time():
    assert mean_cosine(TRAIN.hidden) == pytest.approx(oracles.mean_pairwise_cosine(TRAIN.hidden), abs=1e-12)
    assert mean_cosine(torch.tensor([[2.0, 0.0], [5.0, 0.0]])) == pytest.approx(1)
    assert mean_cosine(torch.tensor([[0.0, 0.0], [5.0, 0.0]])) == 0


def test_every_cell_equals_a_naive_loop():
    evaluation = Diversity(fractions=(10, 40), seeds=(0, 1))
    results = evaluation.evaluate(RANKINGS, TRAIN)
    subsets = SubsetGrid((10, 40), "mean", (0, 1)).subsets(RANKINGS)
    assert len(results) == 2 * (3 * 2 + 1) * 4
    for result in results:
        key = (result.method, result.group, result.k)
        runs = []
        for subset in subsets:
            if (subset.method, subset.group, subset.percent) == key:
                rows = subset.rows.tolist()
                runs.append(
                    {
                        "cosine_similarity": oracles.mean_pairwise_cosine(TRAIN.hidden[rows]),
                        "loss": sum(float(TRAIN.loss[row]) for row in rows) / len(rows),
                        "vocabulary": oracles.unique_tokens(rows, TOKENS),
                        "input_length": sum(len(TOKENS[row]) for row in rows) / len(rows),
                    }[result.metric]
                )
        assert result.value == pytest.approx(sum(runs) / len(runs))
        assert (result.stderr is None) == (result.group != "random")
        assert result.n == len(rows_of(subsets, key))


def rows_of(subsets, key):
    return next(s.rows for s in subsets if (s.method, s.group, s.percent) == key)


def test_a_single_row_has_no_pairs():
    metrics = {r.metric for r in Diversity(fractions=(1,)).evaluate(RANKINGS, TRAIN)}
    assert metrics == {"loss", "vocabulary", "input_length"}


def test_rows_without_a_label_have_no_loss():
    rankings = {"a": torch.arange(30)}
    unlabelled = replace(TRAIN, loss=TRAIN.loss.clone().index_fill(0, torch.tensor([0, 1]), torch.nan))
    half, none = (
        {r.metric: r.value for r in Diversity(fractions=(f,), groups=("most",)).evaluate(rankings, unlabelled)}
        for f in (14, 7)
    )
    assert half["loss"] == pytest.approx(float(TRAIN.loss[2:4].mean()))
    assert "loss" not in none


def test_least_squares_equals_the_normal_equations_whatever_the_units():
    x = torch.randn(12, 4, generator=GENERATOR, dtype=torch.float64) * torch.tensor([0.1, 1, 1000, 50]) + 7
    y = torch.randn(12, generator=GENERATOR, dtype=torch.float64)
    found = regression(x, y)
    assert found is not None
    expected, expected_errors = oracles.least_squares(x, y)
    torch.testing.assert_close(found.coefficients, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.errors, expected_errors, rtol=1e-6, atol=0)
    standardised, inflation = oracles.standardised_and_inflation(x.numpy(), y.numpy())
    assert found.standardised.tolist() == pytest.approx(standardised, rel=1e-8)
    assert found.inflation.tolist() == pytest.approx(inflation, rel=1e-8)
    low, high = found.interval(1)
    assert (high - low) / 2 == pytest.approx(2.365 * float(found.errors[1]))  # Student's with seven degrees of freedom
    x[:, 3] = x[:, 0] + 1e-5 * x[:, 3]  # nearly the same as another column
    assert float(regression(x, y).inflation[3]) > 50  # type: ignore[union-attr]
    x[:, 3] = 2 * x[:, 0] - x[:, 1] + 3
    assert regression(x, y) is None
    x[:, 3] = 5
    assert regression(x, y) is None


def test_regression_of_accuracy_on_the_metrics_of_the_same_subsets():
    evaluation = Diversity(fractions=(10, 40))
    described = evaluation.evaluate(RANKINGS, TRAIN)
    cells = list(dict.fromkeys((r.method, r.group, r.k) for r in described))
    accuracy = torch.rand(len(cells), generator=GENERATOR, dtype=torch.float64)
    retrained = [
        Result("accuracy", float(value), method=method, group=group, k=k)
        for value, (method, group, k) in zip(accuracy.flip(0), reversed(cells), strict=True)
    ]
    other = [Result("preserved", 0.0, method=r.method, group=r.group, k=r.k) for r in retrained]
    found = evaluation.regress(described, [*other, *retrained])
    value = {(r.method, r.group, r.k, r.metric): r.value for r in described}
    x = torch.tensor([[value[(*cell, metric)] for metric in METRICS] for cell in cells], dtype=torch.float64)
    expected, errors = oracles.least_squares(x, accuracy)
    by_metric = {name: [r for r in found if r.metric == name] for name in dict.fromkeys(r.metric for r in found)}
    assert list(by_metric) == ["coefficient", "coefficient_standardised", "vif"]
    assert all([r.group for r in rows] == list(METRICS) for rows in by_metric.values())
    coefficient = by_metric["coefficient"]
    assert [r.value for r in coefficient] == pytest.approx(expected.tolist(), rel=1e-6)
    assert [r.stderr for r in coefficient] == pytest.approx(errors.tolist(), rel=1e-6)
    standardised, inflation = oracles.standardised_and_inflation(x.numpy(), accuracy.numpy())
    assert [r.value for r in by_metric["coefficient_standardised"]] == pytest.approx(standardised)
    assert [r.value for r in by_metric["vif"]] == pytest.approx(inflation)
    assert found[0].n == len(cells)
    assert "do not determine" in evaluation.regress(described, retrained[:5])
    assert "evaluation=retraining" in evaluation.regress(described, [])


def test_what_is_left_open_comes_from_the_evaluation_it_is_about():
    retraining = Retraining(fractions=(5, 20), rank_by="votes", seeds=(9,))
    taken = Diversity(seeds=(1, 2)).after({"retraining": retraining})
    assert (taken.fractions, taken.rank_by, taken.seeds) == ((5, 20), "votes", (1, 2))
    assert taken.grid.groups == ("most", "least", "random")
    assert Diversity().after({}).fractions == (10,)


def test_what_it_needs():
    assert "instance method" in Diversity().missing(Available())
    assert Diversity().missing(Available(instance=("gradsim",))) == ""
    with pytest.raises(UserError, match="percentages"):
        Diversity(fractions=(0,))
