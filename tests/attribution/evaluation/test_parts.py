"""Breakdowns against a loop over the examples of each part."""

from __future__ import annotations

import pytest
import torch

from twinlens.attribution.evaluation.faithfulness import PROBABILITY, Faithfulness
from twinlens.attribution.evaluation.parts import broken_down, by_column, by_label, by_outcome, is_part
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import wilson

LABEL = torch.tensor([0, 1, 1, -1, 2, 1])
PREDICTION = torch.tensor([0, 1, 0, 1, 2, 2])


def parts() -> dict[str, torch.Tensor]:
    return by_label(LABEL, ["yes", "no", "maybe", "never"]) | by_outcome(PREDICTION, LABEL)


def test_faithfulness_of_every_part_is_that_of_its_examples_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    test = Faithfulness(sufficiency=[1], comprehensiveness=[2])
    keys = [q for name in ("ig", "random/0", "random/1", "no_neurons") for q in test.questions([name])]
    answers = {q.key: torch.rand(6, generator=generator) < 0.6 for q in keys}
    answers |= {q.probability_key: torch.rand(6, generator=generator) for q in keys}
    answers |= {PROBABILITY: torch.rand(6, generator=generator)}
    seeds_of = {"ig": ["ig"], "random_neurons": ["random/0", "random/1"]}
    rows = broken_down(test.evaluate(answers, seeds_of), parts())
    assert {row.group for row in rows} == {
        "label=yes", "label=no", "label=maybe", "prediction=right", "prediction=wrong",
    }  # fmt: skip
    assert {row.metric for row in rows} == {"sufficiency", "comprehensiveness"}
    for row in rows:
        chosen = parts()[row.group]
        alone = test.evaluate({key: values[chosen] for key, values in answers.items()}, seeds_of)
        (same,) = (one for one in alone if (one.metric, one.k, one.method) == (row.metric, row.k, row.method))
        assert (row.value, row.n, row.better) == (same.value, int(chosen.sum()), same.better)
        assert (row.low, row.high) == pytest.approx((same.low, same.high))
        assert row.stderr == pytest.approx(same.stderr) if same.n != 1 else row.stderr is None
        assert row.samples is None


def test_wholes_groups_and_other_numbers_are_left_alone() -> None:
    one = Result("accuracy", 0.5, n=6, samples=torch.tensor([1.0, 0, 1, 0, 1, 0]))
    everything = {"label=yes": torch.ones(6, dtype=torch.bool)}
    others = [
        Result("mrr", 0.5, samples=one.samples),
        Result("accuracy", 0.5, group="most", samples=one.samples),
        Result("accuracy", 0.5),
        Result("accuracy", 0.5, samples=torch.zeros(5)),
    ]
    assert broken_down([one], everything) == []
    assert broken_down(others, parts()) == []


def test_columns_make_parts_where_they_tell_examples_apart() -> None:
    assert by_column("subcase", ["a", "a"]) == {}
    found = by_column("subcase", ["b", "a", "b"])
    assert {name: chosen.tolist() for name, chosen in found.items()} == {
        "subcase=b": [True, False, True], "subcase=a": [False, True, False],
    }  # fmt: skip


def test_parts_are_known_by_their_names() -> None:
    assert all(is_part(name) for name in (*parts(), "subcase=x", "label=a=b"))
    assert not any(map(is_part, ("", None, "most", "capital", "label", "other=x")))
    low, high = wilson(0.5, 6)
    assert low < 0.5 < high
