"""Zeroing per-sentence sets in a batch equals zeroing the parameters of the model for one sentence at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, case
from tests.oracles_neuron_level import parts_of
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.interventions import (
    distinct_mask,
    head_mask,
    random_mask,
    target_metrics,
    zeroed_metrics,
)
from twinlens.attribution.neuron.logprob_increase import ffn_units
from twinlens.attribution.neuron.readout import readout_of
from twinlens.attribution.neuron.static_scores import best_neurons
from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.residual_identities import build_residual


def masks(c, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ffn = torch.rand(3, c.engine.n_layers, c.engine.n_neurons, generator=generator) < 0.3
    heads = torch.rand(3, c.engine.n_layers, c.engine.n_heads, generator=generator) < 0.4
    return ffn, head_mask(heads, c.engine.head_dim)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_zeroed_parameters_sentence_by_sentence(name: str, padding: str) -> None:
    c = case(name, padding)
    ffn, attention = masks(c)
    found = zeroed_metrics(c.engine, c.batch, c.target, ffn, attention, PLENTY)
    for row in range(3):
        kept = []
        for layer, block in enumerate(c.anatomy.blocks):
            for part, chosen in ((c.anatomy.down_projection, ffn), (c.anatomy.attention_output, attention)):
                rows = projection_rows(part(block))
                kept.append((rows, rows.clone()))
                rows[chosen[row, layer]] = 0
        try:
            ids = c.batch["input_ids"][row][c.batch["attention_mask"][row].bool()]
            scores = parts_of(c.anatomy, ids).output[-1] @ c.head.weight.double().T
            scores = scores if c.head.bias is None else scores + c.head.bias.double()
        finally:
            for rows, before in kept:
                rows.copy_(before)
        target = int(c.target[row])
        log_prob = float(scores.log_softmax(-1)[target])
        assert float(found.log_prob[row]) == pytest.approx(log_prob, abs=5e-5)
        assert float(found.prob[row]) == pytest.approx(float(torch.tensor(log_prob).exp()), abs=5e-5)
        rank = 1 + int((scores > scores[target]).sum())
        assert float(found.reciprocal_rank[row]) == pytest.approx(1 / rank)


def test_nothing_zeroed_is_the_model_itself_and_chunks_change_nothing() -> None:
    c = case("opt")
    plain = zeroed_metrics(c.engine, c.batch, c.target, None, None, PLENTY)
    expected = target_metrics(c.states.scores, c.target)
    assert torch.allclose(plain.log_prob, expected.log_prob, atol=1e-5)
    ffn, attention = masks(c)
    one = c.engine.bytes_per_example(c.batch["input_ids"].shape[1], attention=False)
    tight, loose = (zeroed_metrics(c.engine, c.batch, c.target, ffn, attention, budget) for budget in (one, PLENTY))
    assert torch.allclose(tight.log_prob, loose.log_prob, atol=1e-5)
    with pytest.raises(UserError, match="raise memory_budget"):
        zeroed_metrics(c.engine, c.batch, c.target, ffn, attention, one - 1)


def test_a_layer_without_its_neurons_leaves_its_bias() -> None:
    c = case("gpt2")
    layers = torch.tensor([[False, True, False]] * 3)
    every = layers[..., None].expand(-1, -1, c.engine.n_neurons)
    found = zeroed_metrics(c.engine, c.batch, c.target, every, None, PLENTY)
    down = c.anatomy.down_projection(c.anatomy.blocks[1])
    handle = down.register_forward_hook(lambda m, a, out: down.bias.expand_as(out))
    expected = zeroed_metrics(c.engine, c.batch, c.target, None, None, PLENTY)
    handle.remove()
    assert torch.allclose(found.log_prob, expected.log_prob, atol=1e-5)


def test_metrics_by_hand() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0], [2.0, 2.0, 0.0]])
    found = target_metrics(scores, torch.tensor([1, 0]))
    assert found.reciprocal_rank.tolist() == [0.5, 1.0]
    assert found.prob.tolist() == pytest.approx([scores[0].softmax(0)[1].item(), scores[1].softmax(0)[0].item()])
    assert torch.allclose(found.prob.log(), found.log_prob)


def test_repeated_neurons_count_once() -> None:
    layer = torch.tensor([[1, 1, 0, 1, 2], [0, -1, -1, -1, -1]])
    unit = torch.tensor([[3, 3, 2, 0, 1], [1, -1, -1, -1, -1]])
    mask = distinct_mask(layer, unit, 3, 3, 4)
    assert mask[0].nonzero().tolist() == [[0, 2], [1, 0], [1, 3]]
    assert mask[1].nonzero().tolist() == [[0, 1]]


def test_random_controls_match_counts_per_layer_and_depend_on_seed_and_example_alone() -> None:
    like = torch.zeros(4, 3, 50, dtype=torch.bool)
    like[0, 1, :7] = like[1, 2, 10:30] = like[3] = True
    index = torch.tensor([5, 9, 2, 7])
    drawn = random_mask(like, 0, index)
    assert torch.equal(drawn.sum(-1), like.sum(-1))
    assert torch.equal(random_mask(like[1:2], 0, index[1:2])[0], drawn[1])
    assert not torch.equal(random_mask(like, 1, index), drawn)
    assert not torch.equal(drawn[1, 2], like[1, 2])


def test_on_a_real_model_the_found_neurons_matter_far_more_than_controls(shared_data: Path) -> None:
    """The order of Table 2: prompts cut from stories, the target the model's own top token."""
    folder = shared_data / "stories260k" / "hf"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = build_residual(build_anatomy(model.base_model), model.lm_head)
    stories = json.loads((shared_data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))[:200]
    rows = [torch.tensor(tokenizer(story)["input_ids"][: 20 + i % 25]) for i, story in enumerate(stories)]
    tokens = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    states = engine.states({"input_ids": tokens, "attention_mask": mask}, attention=False)
    kept = (states.scores.softmax(-1).amax(-1) >= 0.3).nonzero()[:, 0]
    batch = {"input_ids": tokens[kept], "attention_mask": mask[kept]}
    states = engine.states(batch, attention=False)
    target = states.scores.argmax(-1)
    readout, units = readout_of(engine, states, target), ffn_units(engine, states)
    found = {}
    for score in ("logprob_increase", "value_norm", "coefficient"):
        top = best_neurons(readout, units, score, 10, PLENTY)
        chosen = distinct_mask(top.layer, top.unit, 10, engine.n_layers, engine.n_neurons)
        found[score] = zeroed_metrics(engine, batch, target, chosen, None, PLENTY)
        if score == "logprob_increase":
            control = random_mask(chosen, 0, kept)
            found["random"] = zeroed_metrics(engine, batch, target, control, None, PLENTY)
            assert float(top.evaluated.float().mean()) < 40  # of 860
    assert len(kept) >= 100
    own = found.pop("logprob_increase")
    for other in found.values():
        assert float(own.reciprocal_rank.mean()) < 0.8 * float(other.reciprocal_rank.mean())
        assert float(own.prob.mean()) < 0.7 * float(other.prob.mean())
