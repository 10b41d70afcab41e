"""Relevances equal autograd through transformers' own modules in which whatever is not linear is held by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, case, close, engine_of
from tests.families import LLAMA_SHAPE, choice_batch, random_batch, tiny_backbone
from tests.oracles_joint import held, masking, ones, phi_of
from twinlens.attribution.completions import Completions
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
from twinlens.attribution.neuron.completion_scores import completion_scores
from twinlens.attribution.neuron.relp import RelevancePatching
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.forwards import backbone_arguments
from twinlens.models.residual_identities import build_residual


def dense(engine, batch) -> tuple[Tensor, Tensor]:
    """Of both sites, [batch, layers, units]."""
    found = RelevancePatching(site="both").token_scores(engine, batch, PLENTY)
    assert found.ffn is not None
    assert found.attention is not None
    return found.ffn, found.attention


def by_hand(engine, ids: Tensor, target: int, against: int | None = None, score: bool = False) -> tuple[Tensor, Tensor]:
    """Of one text: a · c as the slope of φ (or of the target's raw score) by a factor of a, everything that is not
    linear held; [layers, units]."""
    sizes = type("Sizes", (), {"n_attention": engine.n_heads * engine.head_dim, "n_neurons": engine.n_neurons,
                               "n_layers": engine.n_layers})  # fmt: skip
    masks = ones(sizes, "both")
    batch = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    with torch.enable_grad(), held(engine.anatomy), masking(engine.anatomy, masks):
        hidden = engine.anatomy.backbone(**backbone_arguments(engine.anatomy.backbone, batch), use_cache=False)
        scores = engine.readout(hidden.last_hidden_state[0, -1])
        value = scores[target] if score else phi_of(scores, target, against)
        found = torch.autograd.grad(value, [masks["ffn"], masks["attn"]])
    return found[0], found[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_relevances_equal_autograd_with_parts_held(name: str) -> None:
    for padding in ("left", "right"):
        c = case(name, padding)
        against = (c.target + 1) % 60
        for asked in ({"target": c.target}, {"target": c.target, "against": against}):
            ffn, attention = dense(c.engine, {**c.batch, **asked})
            for row in range(len(c.target)):
                ids = c.batch["input_ids"][row][c.batch["attention_mask"][row].bool()]
                other = int(against[row]) if "against" in asked else None
                expected = by_hand(c.engine, ids, int(c.target[row]), other)
                assert close(ffn[row], expected[0], 1e-4)
                assert close(attention[row], expected[1], 1e-4)


def test_relevances_go_through_the_norms_behind_the_projections() -> None:
    """Of the attention and of the MLP each its own."""
    backbone = tiny_backbone("olmo2", num_key_value_heads=2, **LLAMA_SHAPE)
    head = torch.nn.Linear(32, 60, bias=False).requires_grad_(False)
    engine, batch, target = build_residual(build_anatomy(backbone), head), random_batch([5, 3]), torch.tensor([3, 10])
    states = engine.states(batch)
    assert states.mlp_scale is not None
    assert not torch.allclose(states.mlp_scale, states.attention_scale, rtol=0.1)
    found = dense(engine, {**batch, "target": target})
    for row in range(2):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        for own, expected in zip(found, by_hand(engine, ids, int(target[row])), strict=True):
            assert close(own[row], expected, 1e-4)


def test_of_a_decoder_that_is_written_out() -> None:
    """The rules in tensors, without a hook: two blocks without norms, then a root mean square."""
    model, batch = ExampleResidualModel(), example_batch()
    ffn, attention = dense(model, {**batch, "target": batch["labels"]})
    d = model.decoder
    for row, ids in enumerate(batch["input_ids"]):
        on = [torch.ones(2, width, requires_grad=True) for width in (5, 4)]
        last = torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None]
        stream = d.embedding[ids]
        for layer in range(2):
            query, key, value = (
                (stream @ weight).unflatten(1, (2, 2)).transpose(0, 1) for weight in d.attention[layer]
            )
            seen = torch.ones(4, 4, dtype=torch.bool).tril()
            weights = (query @ key.mT).masked_fill(~seen, -torch.inf).softmax(-1).detach()
            read = (weights @ value).transpose(0, 1).flatten(1)
            middle = stream + (read * (1 + last * (on[1][layer] - 1))) @ d.output[layer]
            before = middle @ d.up[layer]
            activation = before * (gelu(before) / before).detach()
            stream = middle + (activation * (1 + last * (on[0][layer] - 1))) @ d.down[layer]
        scores = (stream[-1] / stream[-1].square().mean().sqrt().detach()) @ d.head.T
        expected = torch.autograd.grad(scores.log_softmax(-1)[int(batch["labels"][row])], on)
        torch.testing.assert_close(ffn[row], expected[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(attention[row], expected[1], rtol=1e-4, atol=1e-6)


def test_lists_are_the_best_of_either_site() -> None:
    engine, c = engine_of("llama"), case("llama")
    batch = {**c.batch, "target": c.target}
    ffn, attention = dense(engine, batch)
    for site, scores in (("ffn", ffn), ("attn", attention), ("both", torch.cat([ffn, attention], -1))):
        for budget in (PLENTY, 1):
            found = RelevancePatching(site=site, top_k=7).attribute(engine, batch, budget)  # type: ignore[arg-type]
            torch.testing.assert_close(found.score, scores.flatten(1).sort(descending=True).values[:, :7])
        assert torch.equal(found.target, c.target)
        probability = c.states.scores.softmax(-1).gather(1, c.target[:, None])[:, 0]  # texts of one length go together
        torch.testing.assert_close(found.target_prob, probability, rtol=1e-4, atol=1e-6)
    rank = RelevancePatching(site="both", top_k=7).attribute(engine, batch, PLENTY)
    picked = torch.where(
        rank.site == 0,
        ffn[torch.arange(3)[:, None], rank.layer.long(), rank.unit.long().clamp(max=engine.n_neurons - 1)],
        attention[torch.arange(3)[:, None], rank.layer.long(), rank.unit.long().clamp(max=attention.shape[-1] - 1)],
    )
    assert torch.equal(picked, rank.score)


@torch.no_grad()
def test_choices_go_through_the_softmax_over_all_choices() -> None:
    backbone = tiny_backbone("llama")
    head = torch.nn.Linear(backbone.config.hidden_size, 1, bias=False).requires_grad_(False)
    torch.nn.init.normal_(head.weight, generator=torch.manual_seed(3))
    engine = build_residual(build_anatomy(backbone), head)
    batch = {**choice_batch([[6, 5, 7], [4, 4, 3]]), "target": torch.tensor([2, 0])}
    flat = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
    probability = engine.states(flat).scores.view(2, 3).softmax(-1)
    ffn, _ = dense(engine, batch)
    own = {name: batch[name][torch.arange(2), batch["target"]] for name in ("input_ids", "attention_mask")}
    slope = 1 - probability.gather(1, batch["target"][:, None])[:, 0]
    for row in range(2):
        ids = own["input_ids"][row][own["attention_mask"][row].bool()]
        expected = by_hand(engine, ids, 0, score=True)[0]
        assert close(ffn[row], slope[row] * expected, 1e-4)


def test_a_completion_has_the_sum_of_its_tokens() -> None:
    model, completions = ExampleResidualModel(), Completions([[1, 0, 2], [1]])
    method = RelevancePatching(site="both", top_k=18)
    assert method.adds_up
    found = completion_scores(method, model, example_batch(), completions, BUDGET, width=3)
    expected = torch.zeros(2, 2, 9)
    for step in completions.steps(example_batch()):
        expected[step.rows] += torch.cat(dense(model, step.batch), -1)
    unit = found.unit.long() + 5 * (found.site == 1)
    for row in range(2):
        torch.testing.assert_close(found.score[row], expected[row, found.layer[row].long(), unit[row]])
    for site, n_ffn in (("ffn", 5), ("attn", 0)):
        own = RelevancePatching(site=site)  # type: ignore[arg-type]
        assert own.token_scores(model, step.batch, BUDGET).n_ffn == n_ffn


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="unknown site 'mlp' of relp"):
        RelevancePatching(site="mlp")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"method\.relp\.intervention=mean .* site=both are not all of these"):
        RelevancePatching("mean", site="both")


@pytest.mark.parametrize("intervention", ["mean", "resample"])
def test_neurons_are_held_against_what_the_sample_says(intervention: str) -> None:
    c = case("opt")
    activation = torch.randn(4, 1, c.engine.n_layers, c.engine.n_neurons, generator=torch.manual_seed(1))
    sample = Reference(torch.tensor([0, 1, 5, 8]), activation, of_explained=True)
    batch = {**c.batch, "target": c.target}
    method = RelevancePatching(intervention).with_reference(sample)  # type: ignore[arg-type]
    assert not method.adds_up
    zero, found = dense(c.engine, batch)[0], method.token_scores(c.engine, batch, PLENTY).ffn
    assert found is not None
    own = c.states.activation
    off = activation.mean(0) if intervention == "mean" else activation[sample.donors(batch["index"], 0), 0]
    coefficient = zero / own  # ReLU: 0 where the neuron is
    silent = own == 0
    assert bool(silent.any())
    assert bool((~silent).any())
    torch.testing.assert_close(found[~silent], ((own - off) * coefficient)[~silent], rtol=1e-3, atol=1e-5)
    assert bool((found[silent] != 0).any())  # a silent neuron matters where it is not silent elsewhere
