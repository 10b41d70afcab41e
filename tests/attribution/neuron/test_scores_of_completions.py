"""Scores of the second paper for completions: the sum of what every token gives, against single tokens one by one."""

from __future__ import annotations

import pytest
import torch

from twinlens.attribution.completions import Completions
from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
from twinlens.attribution.neuron.completion_scores import completion_scores
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.static_scores import SCORES, WITHOUT_TARGET

COMPLETIONS = Completions([[1, 0, 2], [1]])


@pytest.mark.parametrize("score", [score for score in SCORES if score not in WITHOUT_TARGET])
def test_a_completion_has_the_sum_of_its_tokens(score: str) -> None:
    model = ExampleResidualModel()
    n_units = model.n_layers * model.n_neurons
    method = NeuronScore(score, top_k=n_units)
    assert method.adds_up
    found = completion_scores(method, model, example_batch(), COMPLETIONS, BUDGET, width=3)
    expected = torch.zeros(2, model.n_layers, model.n_neurons)
    for step in COMPLETIONS.steps(example_batch()):
        single = method.attribute(model, step.batch, BUDGET)
        for place, row in enumerate(step.rows.tolist()):
            for layer, unit, value in zip(single.layer[place], single.unit[place], single.score[place], strict=True):
                expected[row, int(layer), int(unit)] += float(value)
    for row in range(2):
        own = expected[row, found.layer[row].long(), found.unit[row].long()]
        torch.testing.assert_close(found.score[row], own, rtol=1e-4, atol=1e-5)
        assert bool((found.score[row].diff() <= 1e-6).all())


def test_scores_of_the_neuron_alone_and_of_attention_do_not_add_up() -> None:
    assert not any(NeuronScore(score).adds_up for score in WITHOUT_TARGET)
    assert not NeuronScore("logprob_increase", site="attn").adds_up
