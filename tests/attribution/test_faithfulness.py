"""Sufficiency and comprehensiveness equal one plain edited forward per question."""

from __future__ import annotations

import pytest
import torch

from attribution.base import UserError
from attribution.evaluation.faithfulness import Faithfulness, Question
from attribution.neuron.ig import IntegratedGradients
from tests.families import FAMILY_CONFIGS, random_batch, tiny_engine
from tests.oracles_neuron import edited_prediction, single

PLENTY = 1 << 34


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_equals_plain_edited_forwards(name: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([5, 9, 7, 3], "left")
    ranked = IntegratedGradients(top_k=30).attribute(engine, batch, PLENTY)
    evaluation = Faithfulness(sufficiency=[1, 5], comprehensiveness=[10, 30])
    lists = {"ig": (ranked.layer, ranked.unit)}
    answers = evaluation.answers(engine, batch, lists, PLENTY)
    chunked = evaluation.answers(engine, batch, lists, 1)
    for question in evaluation.questions(["ig"]):
        assert torch.equal(answers[question.key], chunked[question.key])
        for row in range(4):
            listed = set(
                zip(ranked.layer[row, : question.r].tolist(), ranked.unit[row, : question.r].tolist(), strict=True)
            )
            example = single(batch, row)
            clean = edited_prediction(engine, example, None, "")
            edited = edited_prediction(engine, example, listed, question.test)
            assert bool(answers[question.key][row]) == (clean == edited)


def test_both_tests_have_an_effect_of_their_own() -> None:
    engine = tiny_engine("opt")
    batch = random_batch([9] * 64)
    ranked = IntegratedGradients(top_k=100).attribute(engine, batch, PLENTY)
    answers = Faithfulness().preserved(engine, batch, {"ig": (ranked.layer, ranked.unit)}, PLENTY)
    kept = {key: float(value.double().mean()) for key, value in answers.items()}
    assert 0.2 < kept[Question("ig", "sufficiency", 1).key] < 0.9
    assert kept[Question("ig", "comprehensiveness", 100).key] < 0.2


def test_results_average_seeds_per_example_first() -> None:
    evaluation = Faithfulness([1], [])
    answers = {"a|sufficiency|1": torch.tensor([True, True]), "b|sufficiency|1": torch.tensor([False, True])}
    (result,) = evaluation.evaluate(answers, {"random_neurons": ["a", "b"]})
    assert result.value == 75.0
    assert result.stderr == pytest.approx(25.0)
    assert (result.n, result.k, result.better) == (2, 1, "higher")


def test_short_lists_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.ig\.top_k=50"):
        Faithfulness().require_length("ig", 50)
    with pytest.raises(UserError, match="r ≥ 1"):
        Faithfulness(sufficiency=[0])
