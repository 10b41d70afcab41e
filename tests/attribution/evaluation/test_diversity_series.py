"""The designed series: labels as in the split, similarities as wanted, slopes as the normal equations have them."""

from __future__ import annotations

import pytest
import torch

from tests import oracles_evaluation as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.diversity import METRICS, TrainFacts, describe
from twinlens.attribution.evaluation.diversity_series import DiversitySeries, exchanged, stratified
from twinlens.attribution.evaluation.refits import Reference

GENERATOR = torch.Generator().manual_seed(11)
N = 120
HIDDEN = torch.randn(N, 6, generator=GENERATOR) + torch.linspace(0, 3, N)[:, None]
TRAIN = TrainFacts(
    HIDDEN, torch.rand(N, generator=GENERATOR), [[int(t) for t in torch.randint(30, (5,), generator=GENERATOR)]
    for _ in range(N)], torch.rand(N, generator=GENERATOR) * 9,
)  # fmt: skip
LABEL = torch.randint(3, (N,), generator=GENERATOR)
TESTS = torch.randint(2, (50,), generator=GENERATOR)
SERIES = DiversitySeries(fraction=20, subsets_asked=9, steps=300).with_train(TRAIN)
REFERENCE = Reference(TESTS, TESTS, train_label=LABEL, label_names=["a", "b", "c"])


def naive_similarity(rows: torch.Tensor) -> float:
    units = torch.nn.functional.normalize(HIDDEN[rows].double(), dim=1)
    n = len(rows)
    return float(sum(units[i] @ units[j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1)))


def test_subsets_have_the_splits_labels_and_evenly_spaced_similarities() -> None:
    found = SERIES.subsets({}, LABEL)
    wanted = LABEL.bincount() * 24 / N
    similarities = []
    for one in found:
        assert len(one.rows.unique()) == 24
        assert bool(((LABEL[one.rows].bincount(minlength=3) - wanted).abs() < 1).all())
        similarities.append(naive_similarity(one.rows))
    assert similarities == sorted(similarities)
    steps = torch.tensor(similarities).diff()
    assert float(steps.max() - steps.min()) < 1e-3
    random = [naive_similarity(stratified(LABEL, 24, torch.Generator().manual_seed(s))) for s in range(20)]
    assert similarities[0] < min(random)
    assert similarities[-1] > max(random)
    again = [one.rows.tolist() for one in SERIES.subsets({}, LABEL)]
    assert again == [one.rows.tolist() for one in found]  # equal draws, equal fits in the store


def test_every_exchange_keeps_labels_and_comes_nearer() -> None:
    units = torch.nn.functional.normalize(HIDDEN.double(), dim=1)
    start = stratified(LABEL, 24, torch.Generator().manual_seed(0))
    before = naive_similarity(start)
    for target in (before, 0.5 * before, 1.0):
        rows = exchanged(start, units, LABEL, target, 60, torch.Generator().manual_seed(1))
        assert abs(naive_similarity(rows) - target) <= abs(before - target) + 1e-9
        assert sorted(LABEL[rows].tolist()) == sorted(LABEL[start].tolist())
    assert naive_similarity(exchanged(start, units, LABEL, before, 60, GENERATOR)) == pytest.approx(before, abs=1e-5)


def test_slopes_are_those_of_the_normal_equations() -> None:
    def fit(rows: torch.Tensor, seed: int) -> torch.Tensor:
        right = torch.rand(50, generator=torch.Generator().manual_seed(seed)) < 1.2 - naive_similarity(rows)
        return torch.where(right, TESTS, 1 - TESTS)

    rows = SERIES.evaluate({}, fit, REFERENCE)
    points = [describe(one.rows, TRAIN) for one in SERIES.subsets({}, LABEL)]
    x = torch.tensor([[point[metric] for metric in METRICS] for point in points], dtype=torch.float64)
    y = torch.tensor([r.value for r in rows if r.metric == "designed_accuracy"], dtype=torch.float64)
    assert len(y) == 9
    assert [r.value for r in rows if r.metric == "designed_cosine_similarity"] == pytest.approx(x[:, 0].tolist())
    of_series = {r.metric: r for r in rows if r.group == "cosine_similarity"}
    value, error = oracles.least_squares(x[:, :1], y)
    assert of_series["slope"].value == pytest.approx(float(value), rel=1e-6)
    assert of_series["slope"].stderr == pytest.approx(float(error), rel=1e-6)
    assert of_series["slope"].value < 0  # more alike, less accurate, as the fit above has it
    spread = float(x[:, 0].max() - x[:, 0].min())
    assert of_series["change_over_series"].value == pytest.approx(float(value) * spread, rel=1e-6)
    assert of_series["slope_standardised"].value == pytest.approx(
        oracles.standardised_and_inflation(x[:, :1].numpy(), y.numpy())[0][0]
    )
    values, errors = oracles.least_squares(x, y)
    assert of_series["slope_beside_others"].value == pytest.approx(float(values[0]), rel=1e-5)
    assert of_series["slope_beside_others"].stderr == pytest.approx(float(errors[0]), rel=1e-5)
    assert of_series["vif"].value == pytest.approx(oracles.standardised_and_inflation(x.numpy(), y.numpy())[1][0])
    unlabelled = Reference(TESTS, torch.full((50,), -1), train_label=LABEL)
    assert SERIES.evaluate({}, fit, unlabelled) == []


@pytest.mark.parametrize("options", [{"subsets_asked": 6}, {"seeds": []}, {"fraction": 0}])
def test_series_that_answer_nothing_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=r"evaluation.diversity_series has .*change them"):
        DiversitySeries(**options)
    assert DiversitySeries().expected_fits(1000, 3) == [100] * 50
