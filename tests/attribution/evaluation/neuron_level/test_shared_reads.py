"""Evaluations that share what they read of a sentence answer as each alone, and compute it once, in every family."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, case
from twinlens.attribution.evaluation.neuron_level import value_neurons
from twinlens.attribution.evaluation.neuron_level.head_importance import HeadImportance
from twinlens.attribution.evaluation.neuron_level.importance_sums import ImportanceSums, ScoredSentences
from twinlens.attribution.evaluation.neuron_level.layer_importance import LayerImportance
from twinlens.attribution.evaluation.neuron_level.prompt_view import PromptView
from twinlens.attribution.evaluation.neuron_level.query_interventions import QueryInterventions
from twinlens.attribution.evaluation.neuron_level.query_layers import QueryLayers
from twinlens.attribution.evaluation.neuron_level.reads import Reads, reads_of
from twinlens.attribution.evaluation.neuron_level.segments import Segments
from twinlens.attribution.evaluation.neuron_level.sentences import Sentences
from twinlens.attribution.evaluation.neuron_level.shared_neurons import SharedNeurons
from twinlens.attribution.evaluation.neuron_level.value_interventions import ValueInterventions
from twinlens.attribution.evaluation.neuron_level.value_neurons import shared_operations
from twinlens.attribution.neuron import series_increases


def evaluations() -> dict[str, Any]:
    """All that read sentences, each with lists of another length."""
    whole = {"largest_share": 1.0}
    return {
        "layers": LayerImportance(),
        "values": ValueInterventions(3, 4, control_seeds=[0], **whole),  # type: ignore[arg-type]
        "query_layers": QueryLayers(5, 6, **whole),  # type: ignore[arg-type]
        "queries": QueryInterventions(9, 4, control_seeds=[0], **whole),  # type: ignore[arg-type]
        "shared": SharedNeurons(7, attention=4, **whole),  # type: ignore[arg-type]
        "heads": HeadImportance(),
        "segments": Segments(3),
        "prompt": PromptView(top=3, attention=4, **whole),  # type: ignore[arg-type]
    }


def together(name: str) -> dict[str, dict[str, Tensor]]:
    c, asked = case(name), evaluations()
    shared = Sentences(c.engine, c.batch, c.target, PLENTY, reads=reads_of(asked.values(), c.engine))
    return {key: evaluation.answers(shared) for key, evaluation in asked.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_shared_answers_are_those_of_each_alone(name: str) -> None:
    c, found = case(name), together(name)
    for key, evaluation in evaluations().items():
        alone = evaluation.answers(Sentences(c.engine, c.batch, c.target, PLENTY))
        assert set(alone) == set(found[key])
        for part, values in alone.items():
            assert torch.allclose(values.double(), found[key][part].double(), rtol=1e-5, atol=1e-6), (key, part)


def test_forward_searches_and_query_neurons_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    c, done = case("gpt2"), Counter[str]()

    def counted(owner: Any, what: str, told: Any = lambda *a, **k: "") -> None:
        once = getattr(owner, what)

        def call(*arguments: Any, **more: Any) -> Any:
            done[what + told(*arguments, **more)] += 1
            return once(*arguments, **more)

        monkeypatch.setattr(owner, what, call)

    counted(c.engine, "states")
    counted(c.engine, "zeroed_scores", lambda batch, ffn, attention: "" if ffn is attention is None else " edited")
    counted(value_neurons, "best_neurons")
    counted(value_neurons, "query_neurons")
    together("gpt2")
    assert done == {  # states with attention weights, and without for those that do not read them
        "states": 2, "best_neurons": 2, "query_neurons": 1, "zeroed_scores": 1,
        "zeroed_scores edited": 4,  # value and query neurons, and a control of each
    }  # fmt: skip


def test_a_list_that_is_too_short_is_searched_again() -> None:
    """A longer list than was said to be read, as where too few attention neurons are distinct."""
    c = case("llama")
    sentences = Sentences(c.engine, c.batch, c.target, PLENTY)
    short = value_neurons.attention_values(sentences, "corrected", 2)
    long = value_neurons.attention_values(sentences, "corrected", 9)
    again = value_neurons.attention_values(sentences, "corrected", 2)
    assert (short.score.shape[1], long.score.shape[1], again.score.shape[1]) == (2, 9, 2)
    assert torch.equal(again.unit, short.unit)
    assert torch.equal(long.unit[:, :2], short.unit)


def test_shared_work_is_counted_once() -> None:
    engine, forward = case("gpt2").engine, 1000.0
    asked = evaluations()
    alone = [shared_operations(reads_of([one], engine), engine, 5, forward) for one in asked.values()]
    both = shared_operations(reads_of(asked.values(), engine), engine, 5, forward)
    assert max(alone) < both < sum(alone)
    once = Reads(states=True, original=True)
    assert shared_operations(once, engine, 5, forward) == 2 * forward
    assert shared_operations(once.joined(once), engine, 5, forward) == 2 * forward
    reads = asked["queries"].reads(engine)
    assert reads.values == {("ffn", "corrected"): 9, ("attn", "corrected"): 4}
    assert asked["shared"].reads(engine).joined(reads).values == {("ffn", "corrected"): 9, ("attn", "corrected"): 14}


@pytest.mark.parametrize("name", FAMILIES)
def test_sums_of_all_sentences_at_once_are_those_of_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U·v and its powers are shared by sentences of any length, in groups of any size."""
    monkeypatch.setattr(series_increases, "OUTPUTS_FROM", 1)
    c, test = case(name), ImportanceSums([3, 8], largest_share=1.0)
    alone = test.answers(Sentences(c.engine, c.batch, c.target, PLENTY))
    parts: list[ScoredSentences] = []
    for row in range(3):
        own = c.batch["attention_mask"][row].bool()
        batch = {
            "input_ids": c.batch["input_ids"][row][own][None],
            "attention_mask": torch.ones(1, int(own.sum())).long(),
        }
        parts.append(test.scored(Sentences(c.engine, batch, c.target[row : row + 1], PLENTY)).padded(7))
    for groups in ([parts[0].joined(parts[1:])], [parts[0], parts[1].joined(parts[2:])]):
        found = [
            [test.of_part(c.engine, group, number, PLENTY) for group in groups]
            for number in range(test.n_parts(c.engine))
        ]
        stacked = {
            key: torch.stack([torch.cat([group[key] for group in part]) for part in found]) for key in found[0][0]
        }
        total = test.total(stacked, c.engine, 7)
        for key, values in alone.items():
            assert torch.allclose(values.double(), total[key].double(), rtol=1e-5, atol=1e-5), key


def test_sums_are_counted_apart_from_the_product_that_all_sentences_share() -> None:
    engine, test = case("gpt2").engine, ImportanceSums()
    units = engine.n_layers * (engine.n_neurons + engine.n_heads * engine.head_dim)
    assert engine.output_weight is not None
    size = engine.output_weight.numel()
    assert test.operations_together(engine) == 2 * units * size
    assert test.operations(engine, 5, 0.0, 0) < test.operations_together(engine)
