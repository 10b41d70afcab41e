"""Ablation equals one full forward per neuron, on every family, whatever the batch looks like."""

from __future__ import annotations

import pytest
import torch

from tests.families import ALL_MODELS, random_batch, tiny_engine
from tests.oracles_neuron import forward_scores, single
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.neuron.ablation import Ablation

PLENTY = 1 << 34


def falls(engine, example, layer: int, units: list[int], target: int, other: int, value, place: str) -> list[float]:
    """φ less φ without each neuron, by a full forward each; `value(unit)` is what it becomes."""

    def phi(scores: torch.Tensor) -> float:
        log_prob = scores.double().log_softmax(-1)
        return float(log_prob[target] - (log_prob[other] if other >= 0 else 0))

    def edit_of(unit: int):
        def edit(tensor: torch.Tensor) -> torch.Tensor:
            edited = tensor.clone()
            edited[-1, unit] = value(unit)
            return edited

        return edit

    whole = phi(forward_scores(engine, example))
    return [whole - phi(forward_scores(engine, example, layer, edit_of(unit), place)) for unit in units]


@pytest.mark.parametrize("name", ALL_MODELS)
@pytest.mark.parametrize("padding", ["right", "left"])
def test_equals_a_full_forward_for_every_neuron(name: str, padding: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([7, 4, 9], padding)
    n_units = engine.n_layers * engine.n_neurons
    found = Ablation(top_k=n_units).attribute(engine, batch, PLENTY)
    dense = torch.zeros(3, n_units).scatter_(1, (found.layer * engine.n_neurons + found.unit).long(), found.score)
    for row in (0, 2):
        example = single(batch, row)
        target = int(forward_scores(engine, example).argmax())
        assert int(found.target[row]) == target
        for layer in range(engine.n_layers):
            units = [0, engine.n_neurons - 1]
            expected = falls(engine, example, layer, units, target, -1, lambda unit: 0.0, "activation")
            got = dense[row].view(engine.n_layers, -1)[layer, units].tolist()
            assert got == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("site", ["ffn", "attn"])
def test_weights_in_bfloat16_give_nearly_the_falls_of_float32(site: str) -> None:
    wide, narrow = tiny_engine("gpt_neox"), tiny_engine("gpt_neox")
    narrow.anatomy.backbone.bfloat16()
    narrow.head.bfloat16()
    batch = {**random_batch([6, 9]), "target": torch.tensor([1, 0])}
    method = Ablation(site=site, top_k=200)  # type: ignore[arg-type]
    lists = [method.attribute(engine, batch, PLENTY) for engine in (wide, narrow)]
    width = wide.n_neurons if site == "ffn" else wide.n_attention
    dense = [
        torch.zeros(2, 3 * width).scatter_(1, (found.layer * width + found.unit).long(), found.score.float())
        for found in lists
    ]
    assert float(torch.corrcoef(torch.cat(dense).view(2, -1))[0, 1]) > 0.99


def test_attention_neurons_and_a_difference() -> None:
    engine = tiny_engine("gpt2")
    batch = {**random_batch([6, 9]), "target": torch.tensor([1, 0]), "against": torch.tensor([0, 1])}
    n_units = engine.n_layers * engine.n_attention
    found = Ablation(site="attn", top_k=n_units).attribute(engine, batch, PLENTY)
    assert bool((found.site == 1).all())
    dense = torch.zeros(2, n_units).scatter_(1, (found.layer * engine.n_attention + found.unit).long(), found.score)
    for row in range(2):
        example = single(batch, row)
        for layer in range(engine.n_layers):
            expected = falls(engine, example, layer, [0, 3], 1 - row, row, lambda unit: 0.0, "attention")
            got = dense[row].view(engine.n_layers, -1)[layer, [0, 3]].tolist()
            assert got == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("intervention", ["mean", "resample"])
def test_a_neuron_becomes_what_the_sample_says(intervention: str) -> None:
    engine = tiny_engine("opt")
    batch = random_batch([6, 9])
    activation = torch.randn(4, 1, engine.n_layers, engine.n_neurons)
    sample = Reference(torch.tensor([0, 1, 5, 8]), activation, of_explained=True)
    n_units = engine.n_layers * engine.n_neurons
    method = Ablation(intervention, top_k=n_units, reference_seed=3)
    assert method.reads_reference
    assert not Ablation().reads_reference
    found = method.with_reference(sample).attribute(engine, batch, PLENTY)
    dense = torch.zeros(2, n_units).scatter_(1, (found.layer * engine.n_neurons + found.unit).long(), found.score)
    donors = sample.donors(batch["index"], 3)
    for row in range(2):
        layer = engine.n_layers - 1
        values = activation.mean(0)[0, layer] if intervention == "mean" else activation[donors[row], 0, layer]
        expected = falls(
            engine,
            single(batch, row),
            layer,
            [0, 2],
            int(found.target[row]),
            -1,
            values.__getitem__,
            "activation",
        )
        got = dense[row].view(engine.n_layers, -1)[layer, [0, 2]].tolist()
        assert got == pytest.approx(expected, abs=2e-6)


def test_chunks_leave_scores_unchanged() -> None:
    engine, batch = tiny_engine("llama"), random_batch([6, 9])
    whole, cut = (Ablation(top_k=20).attribute(engine, batch, budget) for budget in (PLENTY, 1))
    assert torch.allclose(whole.score, cut.score, atol=1e-6)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="site=attn are none"):
        Ablation("mean", site="attn")
    with pytest.raises(UserError, match="reference_size=1"):
        Ablation("mean", reference_size=1)
