"""The order of Table 2 on a real model: prompts cut from stories, the target the model's own top token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from twinlens.attribution.evaluation.neuron_level.interventions import Interventions
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences
from twinlens.attribution.evaluation.neuron_level.value_neurons import ffn_list
from twinlens.attribution.neuron.logprob_increase import ffn_units
from twinlens.attribution.neuron.readout import readout_of
from twinlens.attribution.neuron.static_scores import SCORES, best_neurons, gradients
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.residual_identities import build_residual

PLENTY = 1 << 32


@pytest.mark.long
def test_zeroing_the_best_ten_by_logprob_increase_costs_far_more_than_controls(shared_data: Path) -> None:
    folder = shared_data / "stories260k" / "hf"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = build_residual(build_anatomy(model.base_model), model.lm_head)
    stories = json.loads((shared_data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))[:200]
    rows = [torch.tensor(tokenizer(story)["input_ids"][: 20 + i % 25]) for i, story in enumerate(stories)]
    batch = {
        "index": torch.arange(len(rows)),
        "input_ids": pad_sequence(rows, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    }
    probability = engine.states(batch, attention=False).scores.softmax(-1).amax(-1)
    batch = {name: values[probability >= 0.3] for name, values in batch.items()}
    states = engine.states(batch, attention=False)
    target = states.scores.argmax(-1)
    readout, units = readout_of(engine, states, target), ffn_units(engine, states)
    cotangent = one_hot(target, states.scores.shape[1]) - states.scores.softmax(-1)
    slope = gradients(engine, batch, cotangent, PLENTY)
    lists = {score: ffn_list(best_neurons(readout, units, score, 10, PLENTY, slope)) for score in SCORES}

    evaluation = Interventions()
    answers = evaluation.answers(Sentences(engine, batch, target, PLENTY, lists))
    prompts = Prompts([""] * len(target), engine, seeds_of={score: [score] for score in SCORES})
    found: dict[str, dict[str, float]] = {}
    for row in evaluation.evaluate(answers, prompts):
        found.setdefault(row.method, {})[row.metric] = row.value
    for method, values in found.items():
        print(f"| {method} | {values['mrr']:.3f} | {values['prob']:.1f} | {values['logp']:.2f} |")

    assert len(target) >= 100
    own, original = found["logprob_increase"], found["original"]
    for other in ("value_norm", "coefficient", "random_neurons"):
        # what is left, as a share of what the control leaves; zeroing large coefficients does harm too, of any kind
        assert own["mrr"] < 0.8 * found[other]["mrr"], other
        assert own["prob"] < 0.7 * found[other]["prob"], other
        assert own["logp"] < found[other]["logp"], other
    for other in ("value_norm", "random_neurons"):
        assert original["mrr"] - own["mrr"] > 2 * (original["mrr"] - found[other]["mrr"]), other
        assert original["prob"] - own["prob"] > 2 * (original["prob"] - found[other]["prob"]), other
