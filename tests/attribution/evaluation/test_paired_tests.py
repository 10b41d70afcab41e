"""Intervals and paired tests against counting by hand: every outcome of small cases, or naive loops over resamples."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
import torch
from torchmetrics.functional.classification import multiclass_f1_score

from twinlens.attribution.evaluation.accuracy import Accuracy
from twinlens.attribution.evaluation.comparisons import Measured, compare_methods
from twinlens.attribution.evaluation.paired_tests import bootstrap, holm, mcnemar
from twinlens.attribution.evaluation.resampling import ends, resampled_means, resampled_means_of_runs
from twinlens.attribution.evaluation.statistics import NORMAL_975, student_975, wilson


def yes(*outcomes: int) -> torch.Tensor:
    return torch.tensor(outcomes, dtype=torch.float64)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (1, 300), (300, 300)])
def test_wilsons_ends_are_the_shares_that_the_score_test_just_keeps(successes: int, n: int) -> None:
    share = successes / n
    low, high = wilson(share, n)
    assert 0 <= low < high <= 1
    for end in (low, high):  # |share − p| = z √(p (1 − p) / n)
        assert abs(share - end) == pytest.approx(NORMAL_975 * math.sqrt(end * (1 - end) / n), abs=1e-9)
    assert [100 * end for end in (low, high)] == pytest.approx(wilson(share, n, 100))


@pytest.mark.parametrize("degrees", [1, 2, 5, 30, 31, 60, 200])
def test_students_quantiles_hold_95_per_cent(degrees: int) -> None:
    end = student_975(degrees)
    steps = 200_000
    grid = torch.linspace(-end, end, steps, dtype=torch.float64)
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    density = constant * (1 + grid.square() / degrees) ** (-(degrees + 1) / 2)
    assert float(torch.trapezoid(density, grid)) == pytest.approx(0.95, abs=3e-4)


@pytest.mark.parametrize(("gained", "lost", "agreeing"), [(0, 0, 5), (5, 0, 1), (1, 4, 0), (6, 3, 9), (3, 3, 2)])
def test_mcnemar_counts_every_outcome_of_fair_coins(gained: int, lost: int, agreeing: int) -> None:
    first = yes(*[1] * gained, *[0] * lost, *[1] * agreeing)
    second = yes(*[0] * gained, *[1] * lost, *[1] * agreeing)
    found = mcnemar(first, second)
    tosses = list(product((0, 1), repeat=gained + lost))
    as_far = [toss for toss in tosses if abs(2 * sum(toss) - len(toss)) >= abs(gained - lost)]
    assert found.p == pytest.approx(float(Fraction(len(as_far), len(tosses))))
    assert found.difference == pytest.approx((gained - lost) / len(first))
    assert found.low < found.high
    assert found.low <= found.difference <= found.high
    swapped = mcnemar(second, first)
    assert (swapped.p, -swapped.high, -swapped.low) == pytest.approx((found.p, found.low, found.high))


def test_mcnemar_of_many_is_close_to_the_exact_one() -> None:
    first, second = yes(*[1] * 540, *[0] * 480), yes(*[0] * 540, *[1] * 480)
    many = mcnemar(first, second)
    assert many.test == "McNemar, chi-square"
    exact = 2 * sum(math.comb(1020, i) for i in range(481)) / 2**1020
    assert many.p == pytest.approx(exact, rel=0.02)


def test_resampled_means_are_those_of_a_loop_over_draws() -> None:
    values = torch.rand(3, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    generator = torch.Generator().manual_seed(7)
    chosen = torch.randint(11, (40, 11), generator=generator)
    naive = torch.stack([torch.stack([row[draw].mean() for row in values]) for draw in chosen])
    assert torch.allclose(resampled_means(values, 40, seed=7), naive)
    runs = torch.stack([values, values + 1], 1)  # the second fit is better by 1 everywhere
    found = resampled_means_of_runs(runs, 400, seed=7)
    drawn = (found - resampled_means(values, 400, seed=7)).round(decimals=9)  # 0, 1 or 2 of two fits are the second
    assert set(drawn.unique().tolist()) == {0.0, 0.5, 1.0}
    assert bool((drawn == drawn[:, :1]).all())  # the same fits for every row


def test_the_interval_of_a_mean_is_that_of_its_error() -> None:
    values = torch.randn(1, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = ends(values, lambda means: means[:, 0])
    error = float(values.std() / 20)
    assert low is not None
    assert high is not None
    assert (low, high) == pytest.approx(
        (float(values.mean()) - 1.96 * error, float(values.mean()) + 1.96 * error), abs=0.02
    )
    assert ends(values[:, :1], lambda means: means[:, 0]) == (None, None)


def test_bootstrap_p_counts_resamples_on_the_other_side() -> None:
    first, second = torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.zeros(4)
    assert bootstrap(first, second, 1.25).p == pytest.approx(2 * (1 + 1) / 5)
    assert bootstrap(second, second, 0.0).p == 1.0


def test_holm_rejects_what_its_steps_reject() -> None:
    p = [0.001, 0.2, 0.012, 0.04, 0.04]
    adjusted = holm(p)
    for level in (0.005, 0.01, 0.05, 0.06, 0.1, 0.16, 0.3):
        rejected: set[int] = set()
        for step, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[number] > level / (len(p) - step):
                break
            rejected.add(number)
        assert {number for number, value in enumerate(adjusted) if value <= level} == rejected
    assert holm([]) == []


def test_macro_f1_of_resamples_is_that_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(3)
    label, noise = torch.randint(3, (25,), generator=generator), torch.randint(3, (25,), generator=generator)
    prediction = torch.where(torch.rand(25, generator=generator) < 0.6, label, noise)
    row = Accuracy().evaluate(prediction, label, 3, "test")[1]
    draws = torch.randint(25, (2000, 25), generator=torch.Generator().manual_seed(0))
    naive = sorted(float(multiclass_f1_score(prediction[one], label[one], 3, average="macro")) for one in draws[:200])
    assert row.low is not None
    assert row.high is not None
    assert row.low == pytest.approx(naive[5], abs=0.05)
    assert row.high == pytest.approx(naive[194], abs=0.05)


def measured(method: str, samples: torch.Tensor, **more: object) -> Measured:
    cells: dict[str, object] = {"evaluation": "e", "metric": "m", "split": "test", "k": 1.0, "group": "",
                                "variant": "", "matched": "", "control": False, "unit": 1.0}  # fmt: skip
    return Measured(method=method, samples=samples.double().view(-1, samples.shape[-1]), **(cells | more))  # type: ignore[arg-type]


def test_every_pair_is_tested_once_and_controls_are_references() -> None:
    rows = [
        measured("random", yes(0, 1, 0, 0), control=True),
        measured("a", yes(1, 1, 0, 1)),
        measured("b", yes(1, 0, 0, 1)),
        measured("a", yes(1, 1, 1, 1), k=2.0),  # alone at its k
        measured("random", yes(0, 0, 0, 0), control=True, matched="b", variant=""),  # drawn for b alone
        measured("c", yes(1, 1, 1)),  # of other examples
        measured("a", yes(1, 1, 0, 1), metric="m_flips"),
        measured("b", yes(1, 0, 0, 1), metric="m_flips"),
        measured("a", yes(1, 1, 0, 1), group="capital"),
        measured("b", yes(1, 0, 0, 1), group="capital"),
    ]
    found = compare_methods(rows)
    assert [(one.method, one.reference, one.difference) for one in found] == [
        ("a", "random", 0.5), ("b", "random", 0.25), ("a", "b", 0.25), ("b", "random", 0.5),
    ]  # fmt: skip
    assert {(one.pairs, one.test, one.n, one.runs) for one in found} == {(4, "McNemar, exact", 4, 1)}
    assert [one.adjusted for one in found] == holm([one.p for one in found])


def test_random_rows_stand_beside_both_ends_of_a_ranking_over_seeds() -> None:
    generator = torch.Generator().manual_seed(5)
    outcomes = [torch.randint(2, (3, 20), generator=generator) for _ in range(3)]
    rows = [
        measured("gradsim", outcomes[0], group="most"),
        measured("gradsim", outcomes[1], group="least"),
        measured("random_instances", outcomes[2], group="random", control=True),
    ]
    found = compare_methods(rows)
    assert [(one.group, one.method, one.reference, one.test, one.runs) for one in found] == [
        (end, "gradsim", "random_instances", "bootstrap over examples and 3 seeds", 3) for end in ("most", "least")
    ]
    for one, values in zip(found, outcomes, strict=False):
        assert one.difference == pytest.approx(float(values.double().mean() - outcomes[2].double().mean()))
        assert one.low <= one.difference <= one.high


def test_units_are_those_of_the_metric() -> None:
    (share,) = compare_methods([measured("a", yes(1, 1, 1, 0)), measured("b", yes(0, 0, 1, 0))])
    (cent,) = compare_methods([measured("a", yes(1, 1, 1, 0), unit=100.0), measured("b", yes(0, 0, 1, 0), unit=100.0)])
    assert [100 * end for end in (share.difference, share.low, share.high)] == [cent.difference, cent.low, cent.high]
    assert share.p == cent.p
