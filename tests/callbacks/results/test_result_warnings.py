"""Methods beside their random controls, on rows of results.csv."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from twinlens.attribution.evaluation.comparisons import Measured, compare_methods
from twinlens.callbacks.results.columns import COLUMNS, is_chance, is_control
from twinlens.callbacks.results.result_warnings import gains, not_above, on_few
from twinlens.callbacks.results.run_warning import measured

LOWER = ("comprehensiveness", "comprehensiveness_auc", "sufficiency_flips")


def row(method: str, value: float, stderr: float | None = 2.0, metric: str = "sufficiency", **more: Any) -> dict:
    cells = {"method": method, "value": value, "stderr": stderr, "metric": metric, "evaluation": "faithfulness"}
    cells["control"] = "true" if method in ("random_neurons", "random_instances", "random_ig") else None
    return {**dict.fromkeys(COLUMNS), "split": "test", "n": 100, **cells, **more}


def told(*rows: dict) -> list[tuple[str, str, float | None, float]]:
    """(method, metric, k, gain) of each warning."""
    directions = {measured(one): "lower" if one["metric"] in LOWER else "higher" for one in rows}
    return [
        (gain.row["method"], gain.row["metric"], gain.row["k"], gain.gain)
        for gain in not_above(gains(rows, directions))
    ]


def test_the_interval_decides() -> None:
    """Both errors are 2, so that a gain has to be above 1.96 · √8 = 5.54."""
    assert told(row("ig", 65.5), row("random_neurons", 60.0)) == [("ig", "sufficiency", None, 5.5)]
    assert told(row("ig", 65.6), row("random_neurons", 60.0)) == []
    assert told(row("ig", 50.0), row("random_neurons", 60.0)) == [("ig", "sufficiency", None, -10.0)]


HARD = torch.linspace(0, 10, 40, dtype=torch.float64)
"""What examples differ in, far more than methods."""
BETTER = HARD + 1 + 0.1 * torch.sin(torch.arange(40.0, dtype=torch.float64))


def of_examples(
    method: str, samples: torch.Tensor, metric: str, group: str, matched: str = ""
) -> tuple[dict, Measured]:
    """A row and the values behind it."""
    drawn = method.startswith("random")
    measured_so = Measured("faithfulness", metric, "test", 1, group, "", method, matched, drawn, 1.0, samples[None])
    stderr = float(samples.std() / len(samples) ** 0.5)
    name = method.partition(" [")[0]
    return row(
        name, float(samples.mean()), stderr, metric, k=1, group=group or None, reference_group=matched or None
    ), (measured_so)


@pytest.mark.parametrize(("direction", "own", "drawn"), [("higher", BETTER, HARD), ("lower", HARD, BETTER)])
@pytest.mark.parametrize(("groups", "matched"), [(("", ""), ""), (("", ""), "ig"), (("most", "random"), "")])
def test_of_the_same_examples_the_paired_interval_decides(
    direction: str, own: torch.Tensor, drawn: torch.Tensor, groups: tuple[str, str], matched: str
) -> None:
    first, mine = of_examples("ig [n_steps=5]" if not matched else "ig", own, "sufficiency", groups[0])
    second, control = of_examples("random_neurons", drawn, "sufficiency", groups[1], matched)
    directions = {measured(one): direction for one in (first, second)}
    (alone,) = gains([first, second], directions)
    assert alone.lowest < 0 < alone.gain
    (paired,) = gains([first, second], directions, [mine, control])
    (expected,) = compare_methods([mine, control])
    ends = expected.low, expected.high
    assert paired.ends == (ends if direction == "higher" else (-ends[1], -ends[0]))
    assert 0 < paired.lowest < paired.gain
    assert not_above([paired]) == []
    assert not_above([alone]) == [alone]


def test_lower_may_be_better() -> None:
    metric = "comprehensiveness"
    assert told(row("ig", 40.0, metric=metric), row("random_neurons", 60.0, metric=metric)) == []
    assert told(row("ig", 80.0, metric=metric), row("random_neurons", 60.0, metric=metric)) == [
        ("ig", metric, None, -20.0)
    ]


def test_without_errors_the_values_decide() -> None:
    assert told(row("ig", 60.5, None), row("random_neurons", 60.0, None)) == []
    assert told(row("ig", 60.0, None), row("random_neurons", 60.0, None)) == [("ig", "sufficiency", None, 0.0)]


def test_a_metric_at_several_k_is_judged_by_its_best() -> None:
    weak, strong = (row("ig", value, k=k) for value, k in ((61.0, 1), (90.0, 100)))
    controls = [row("random_neurons", 60.0, k=k) for k in (1, 100)]
    assert told(weak, strong, *controls) == []
    assert told(weak, row("ig", 62.0, k=100), *controls) == [("ig", "sufficiency", 100, 2.0)]


def test_the_area_speaks_for_its_curve_and_the_curve_for_its_other_views() -> None:
    curve = [row("ig", 60.0, k=1), row("random_neurons", 60.0, k=1)]
    flips = [row("ig", 9.0, metric="sufficiency_flips"), row("random_neurons", 5.0, metric="sufficiency_flips")]
    area = [row("ig", 80.0, metric="sufficiency_auc"), row("random_neurons", 60.0, metric="sufficiency_auc")]
    assert told(*curve, *flips, *area) == []
    assert told(*curve, *flips) == [("ig", "sufficiency", 1, 0.0)]


def test_a_control_drawn_for_the_method_comes_before_the_common_one() -> None:
    common = row("random_neurons", 20.0)
    own = row("random_neurons", 60.0, reference_group="ig", variant="control=matched;intervention=mean")
    assert told(row("ig", 61.0, variant="intervention=mean"), common, own) == [("ig", "sufficiency", None, 1.0)]
    assert told(row("other", 61.0), common, own) == []


@pytest.mark.parametrize("beside", ["no_neurons", "no_neurons/attn", "other_seed"])
def test_what_is_no_chance_is_no_random_control(beside: str) -> None:
    """A base line without a list, and models of the same rows under another seed: what training again reaches."""
    reached = row(beside, 89.0, control="true")
    assert told(row("ig", 90.0), reached) == []
    assert told(row("ig", 90.0), reached, row("random_neurons", 89.0)) == [("ig", "sufficiency", None, 1.0)]
    assert [is_chance(one) for one in (reached, row("random_neurons", 1.0), row("ig", 1.0))] == [False, True, False]


def test_other_settings_splits_and_evaluations_have_no_control() -> None:
    control = row("random_neurons", 60.0)
    for more in ({"variant": "positions=all"}, {"split": "validation"}, {"evaluation": "other"}, {"k": 3}):
        assert told(row("ig", 60.0, **more), control) == []


def test_the_first_rows_of_a_ranking_are_beside_random_rows() -> None:
    cells = {"evaluation": "retraining", "metric": "preserved", "k": 10}
    random = row("random_instances", 0.6, 0.01, group="random", **cells)
    most, least = (row("gradsim", 0.61, 0.01, group=group, **cells) for group in ("most", "least"))
    assert told(most, least, random) == [("gradsim", "preserved", 10, pytest.approx(0.01))]


def test_parts_of_the_examples_are_not_judged() -> None:
    assert told(row("ig", 60.0, group="capital"), row("random_neurons", 60.0, group="capital")) == []


def test_what_is_measured_by_two_evaluations_has_its_own_direction() -> None:
    """MRR is better high of the model and better low without the neurons of a method; a reference has no direction."""
    rows = [row(method, value, metric="mrr", evaluation="interventions")
            for method, value in (("original", 90.0), ("ig", 10.0), ("random_neurons", 80.0))]  # fmt: skip
    directions = {("known_facts", "mrr", ""): "higher", ("interventions", "mrr", "ig"): "lower",
                  ("interventions", "mrr", "random_neurons"): "lower"}  # fmt: skip
    assert not_above(gains(rows, directions)) == []


def test_few_examples() -> None:
    rows = [row("ig", 1.0, n=19), row("ig", 1.0, n=30), row("ig", 1.0, n=3, group="capital"),
            row("ig", 1.0, n=20, evaluation="duplicates")]  # fmt: skip
    directions = {measured(one): "higher" for one in rows}
    assert on_few(rows, directions) == {"faithfulness": 19}
    assert on_few(rows, {}) == {}, "lists and maps are no measurements"


def test_controls_are_known_by_their_column() -> None:
    assert is_control(row("random_instances", 1.0))
    assert not is_control(row("random_walk", 1.0))
    assert not is_control({"method": None})
