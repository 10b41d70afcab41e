"""Mixtures of experts: units of every expert as neurons, matrices of every expert as linear layers, and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.decoders import tiny_decoder
from tests.oracles_decoders import logits_of
from tests.oracles_experts import plain_downs
from tests.served_decoders import BUDGET, CELLS, Subject, subject_of
from twinlens.attribution.completions import Completions
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import UNPROJECTED
from twinlens.attribution.gradients.cotangents import train_cotangents
from twinlens.attribution.gradients.factor_sums import FactorSums, ekfac_bases, kfac_bases
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.neuron.ablation import Ablation
from twinlens.attribution.neuron.atp import AttributionPatching
from twinlens.attribution.neuron.completion_scores import completion_scores
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.ig_joint import JointIntegratedGradients
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.query_scores import QueryLayers
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.attribution.targets import Targets
from twinlens.models.anatomy import Anatomy
from twinlens.models.anatomy_check import build_anatomy, require_parts
from twinlens.models.expert_layers import ExpertMatrix
from twinlens.models.expert_projection import MixtureProjection
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.linear_layers import coverage, linear_layers

SHARED, DENSE_FIRST, BIASES = "qwen2_moe", "deepseek_v2", "gpt_oss"
"""A shared expert behind a gate; a dense first layer, and shared experts without a gate; biases and turned weights."""


def plain_state(model: Any) -> list[tuple[int, int, bool]]:
    """Hooks of all modules, and whether their way to compute was changed."""
    return [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()]


@pytest.mark.parametrize(
    ("name", "cell"),
    [(SHARED, "FFN"), (BIASES, "FFN"), (DENSE_FIRST, "rows"), (DENSE_FIRST, "gradients"), (BIASES, "gradients")],
)
def test_what_is_served_equals_plain_loops(name: str, cell: str) -> None:
    """Of every type in the long series (`test_every_type_is_as_the_table_says`)."""
    subject = Subject.plain(name) if cell == "gradients" else subject_of(name)
    before = plain_state(subject.lm)
    said = {"rows": "replayed", "gradients": "yes", "FFN": "experts, shared ones too" if name == SHARED else "experts"}
    assert CELLS[cell](subject) == said[cell]
    assert plain_state(subject.lm) == before


def test_a_dense_layer_among_mixtures_has_neurons_to_fill_up_that_no_list_names() -> None:
    subject = subject_of(DENSE_FIRST)
    engine = subject.engine
    assert engine is not None
    places = engine.experts
    assert places is not None
    assert (0 in places.layers, places.routed, places.units, places.n_units) == (False, 4, 24, engine.n_neurons)
    assert places.shared
    _, batch = subject.batches()[0]
    own = 48
    states = engine.states(batch)
    assert not states.activation[:, 0, own:].any()
    assert not engine.values(0)[own:].any()
    routed = states.activation[:, 1:, : 4 * 24].unflatten(-1, (4, 24)).abs().amax(-1) > 0
    assert (routed.sum(-1) == 2).all()  # experts of each token
    assert states.activation[:, 1:, 4 * 24 :].all()


@pytest.mark.parametrize(
    "method",
    [
        IntegratedGradients(n_steps=2, top_k=400),
        Ablation(top_k=400),
        RandomNeurons([0], top_k=400),
        NeuronScore("logprob_increase", top_k=400),
        NeuronScore("log_prob", top_k=400),
        NeuronScore("value_norm", top_k=400),
    ],
    ids=lambda method: str(getattr(method, "score", type(method).__name__)),
)
def test_lists_hold_every_neuron_that_the_token_was_sent_to_and_no_other(method: Any) -> None:
    subject = subject_of("mixtral")
    engine: Any = subject.residual if method.engine == "residual" else subject.engine
    assert subject.engine is not None
    _, batch = subject.batches()[1]
    found = method.attribute(engine, batch, BUDGET)
    present = subject.engine.states(batch).activation != 0
    for row, there in enumerate(present):
        listed = [
            pair for pair in zip(found.layer[row].tolist(), found.unit[row].tolist(), strict=True) if pair[0] >= 0
        ]
        assert sorted(listed) == [tuple(pair) for pair in there.nonzero().tolist()]
        assert len(listed) == 3 * 2 * 48  # layers, experts of a token, units
        scores = found.score[row, : len(listed)]
        assert bool((scores[:-1] >= scores[1:]).all())
        assert bool(scores.isfinite().all())


@pytest.mark.parametrize("method", [IntegratedGradients(n_steps=2, top_k=800), NeuronScore("inverse_rank", top_k=800)])
def test_lists_of_completions_hold_what_any_of_their_tokens_was_sent_to(method: Any) -> None:
    subject = subject_of("mixtral")
    assert subject.engine is not None
    engine: Any = subject.residual if method.engine == "residual" else subject.engine
    _, batch = subject.batches()[0]
    completions = Completions([[5, 9], [7], [8, 30]])
    found = completion_scores(method, engine, batch, completions, BUDGET, width=2)
    there = torch.zeros(3, 3, engine.n_neurons, dtype=torch.bool)
    for step in completions.steps(batch):
        there[step.rows] |= subject.engine.states(step.batch).activation != 0
    for row in range(3):
        pairs = zip(found.layer[row].tolist(), found.unit[row].tolist(), strict=True)
        assert sorted(pair for pair in pairs if pair[0] >= 0) == [tuple(pair) for pair in there[row].nonzero().tolist()]
    assert int(there[0].sum()) > int(there[1].sum())


@torch.no_grad()
def test_a_factor_of_the_routed_experts_is_one_of_their_coefficients_and_biases() -> None:
    lm: Any = tiny_decoder(BIASES)
    anatomy = build_anatomy(lm.model)
    block = anatomy.blocks[1]
    known: Any = anatomy.down_projection(block)
    seen: dict[float, tuple[Tensor, Tensor]] = {}
    for scale in (1.0, 2.5):
        projection = MixtureProjection(block, replace(known.mixture, scale=scale), known.in_features)

        def keep(module: Any, args: tuple, scale: float = scale) -> None:
            seen[scale] = args[0].flatten(0, -2), module.constant

        handle = projection.register_forward_pre_hook(keep)
        lm(torch.tensor([[5, 9, 30, 7]]))
        handle.remove()
    for one, more in zip(seen[1.0], seen[2.5], strict=True):
        assert one.any()
        torch.testing.assert_close(more, 2.5 * one)


@pytest.mark.parametrize("name", ["granitemoe", pytest.param("afmoe", marks=pytest.mark.long)])
def test_ablation_goes_through_factors_and_norms_behind_the_experts(name: str) -> None:
    subject = subject_of(name)
    assert subject.engine is not None
    anatomy = subject.engine.anatomy
    downs = plain_downs(anatomy)
    _, batch = subject.batches()[2]
    found = Ablation(top_k=40).attribute(subject.engine, batch, BUDGET)
    text, target = batch["input_ids"][0], int(found.target[0])  # type: ignore[index]
    whole = logits_of(subject.lm, text).log_softmax(-1)[target]
    for place in (0, 1, 20, 39):
        layer, unit = int(found.layer[0, place]), int(found.unit[0, place])

        def without(module: Any, args: tuple, unit: int = unit) -> tuple:
            rows = args[0].reshape(-1, args[0].shape[-1]).clone()
            rows[-1, unit] = 0
            return (rows.reshape(args[0].shape), *args[1:])

        handle = downs[layer].register_forward_pre_hook(without)
        left = logits_of(subject.lm, text).log_softmax(-1)[target]
        handle.remove()
        assert float(found.score[0, place]) == pytest.approx(float(whole - left), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("method", [AttributionPatching(top_k=800), JointIntegratedGradients(n_steps=2, top_k=800)])
def test_lists_over_all_layers_hold_what_the_token_was_sent_to(method: Any) -> None:
    subject = subject_of(SHARED)
    assert subject.engine is not None
    _, batch = subject.batches()[0]
    found = method.attribute(subject.engine, batch, BUDGET)
    there = subject.engine.states(batch).activation != 0
    for row in range(len(there)):
        pairs = zip(found.layer[row].tolist(), found.unit[row].tolist(), strict=True)
        assert sorted(pair for pair in pairs if pair[0] >= 0) == [tuple(pair) for pair in there[row].nonzero().tolist()]


@pytest.mark.parametrize("name", [SHARED, pytest.param(BIASES, marks=pytest.mark.long)])
def test_edits_of_all_layers_at_once_are_differentiated_through_the_neurons(name: str) -> None:
    """By a factor of every layer, against central differences: routers and experts above see what is below."""
    plain = Subject.plain(name)
    lm: Any = plain.lm.double()
    engine = LastTokenEngine(build_anatomy(lm.base_model), lm.get_output_embeddings(), "token")
    _, batch = plain.batches()[0]
    states = engine.states(batch)
    directions = torch.randn(engine.n_layers, engine.n_neurons, generator=torch.Generator().manual_seed(3)).double()

    def value(factors: Tensor) -> Tensor:
        def edit(layer: int, activation: Tensor) -> Tensor:
            return activation * (0.6 + factors[layer] * directions[layer])

        return engine.score_edits(states, edit, 1)[:, 0].log_softmax(-1)[:, 7].sum()

    factors = torch.zeros(engine.n_layers, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(value(factors), factors)
    step = 1e-3  # routers compute in single precision
    for layer in range(engine.n_layers):
        ahead = torch.zeros(engine.n_layers, dtype=torch.float64)
        ahead[layer] = step
        with torch.no_grad():
            expected = (value(ahead) - value(-ahead)) / (2 * step)
        torch.testing.assert_close(slope[layer], expected, rtol=5e-3, atol=1e-4)


def test_zeroed_units_are_zeroed_columns_of_the_experts_at_every_token() -> None:
    subject = subject_of(SHARED)
    engine: Any = subject.residual
    _, batch = subject.batches()[2]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(1, engine.n_layers, engine.n_neurons, generator=generator) < 0.3
    found = engine.zeroed_scores(batch, chosen, None)
    before = [parameter.clone() for parameter in subject.lm.parameters()]
    for layer, block in enumerate(engine.anatomy.blocks):
        units = chosen[0, layer]
        experts, shared = block.mlp.experts, block.mlp.shared_expert.down_proj
        routed = units[: -shared.in_features].view(experts.num_experts, 1, -1)
        experts.down_proj.masked_fill_(routed, 0)
        shared.weight.masked_fill_(units[-shared.in_features :], 0)
    expected = subject.lm(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for parameter, own in zip(subject.lm.parameters(), before, strict=True):
        parameter.copy_(own)


def test_paths_over_all_positions_are_complete_where_no_router_lies_above() -> None:
    """Below, a router may choose other experts on the way, where P jumps: the residual says so."""
    subject = subject_of(DENSE_FIRST)
    assert subject.engine is not None
    _, batch = subject.batches()[0]
    method = IntegratedGradients("gauss", n_steps=24, positions="all", top_k=2000)
    found = method.attribute(subject.engine, batch, BUDGET)
    assert found.completeness is not None
    assert float(found.completeness[:, -1].max()) < 1e-5
    assert float(found.score.abs().max()) > 1e-3
    assert not bool(((found.layer == 0) & (found.unit >= 48)).any())


def test_the_library_s_faster_experts_have_the_same_neurons() -> None:
    slow, fast = subject_of("olmoe"), subject_of("olmoe")
    fast.lm.set_experts_implementation("batched_mm")
    assert slow.engine is not None
    assert fast.engine is not None
    _, batch = slow.batches()[0]
    lists = [IntegratedGradients(n_steps=2).attribute(each.engine, batch, BUDGET) for each in (slow, fast)]
    torch.testing.assert_close(lists[0].score, lists[1].score, rtol=1e-3, atol=1e-6)
    assert torch.equal(lists[0].unit[:, :10], lists[1].unit[:, :10])


def test_layers_of_experts_have_names_and_sizes_and_count_once() -> None:
    lm = tiny_decoder(BIASES)
    head = lm.get_output_embeddings()
    layers = linear_layers(lm, head, "all")
    own = [layer for layer in layers if isinstance(layer.module, ExpertMatrix)]
    assert len(own) == 3 * 4 * 2
    experts = lm.model.layers[1].mlp.experts
    assert sum(layer.n_parameters for layer in own if layer.block == 1) == sum(p.numel() for p in experts.parameters())
    assert own[0].name == "model.layers.0.mlp.experts.gate_up_proj.0"
    whole = coverage(lm, head, layers)
    assert whole.covered == sum(layer.n_parameters for layer in layers)
    assert not any("expert" in what.lower() for what in whole.left_out)
    one = linear_layers(lm, head, "*.1.mlp.experts.*.3")
    assert [layer.name.split("experts.")[1] for layer in one] == ["gate_up_proj.3", "down_proj.3"]
    some = coverage(lm, head, one)
    assert some.covered == sum(layer.n_parameters for layer in one)
    assert some.covered + sum(some.left_out.values()) == sum(p.numel() for p in lm.parameters())


def test_influence_by_ekfac_over_experts_equals_gradients_rotated_by_hand() -> None:
    """Every gradient is autograd's of the whole block of experts; an expert without a train example has no share."""
    lm: Any = tiny_decoder("mixtral", num_hidden_layers=1, num_local_experts=8, num_experts_per_tok=1).double()
    head = lm.get_output_embeddings()
    layers = linear_layers(lm, head, "*.experts.*")
    generator = torch.Generator().manual_seed(1)
    ids, labels = torch.randint(3, 90, (5, 3), generator=generator), torch.tensor([4, 8, 15, 16, 23])
    mask = torch.ones_like(ids)
    method = Influence(curvature="ekfac", fisher="empirical", params="all", damping=0.1)

    def scores(rows: slice) -> Tensor:
        return lm(input_ids=ids[rows], attention_mask=mask[rows], use_cache=False).logits[:, -1]

    bases: Any = None
    for _ in range(2):
        sums = FactorSums(layers, "empirical", bases)
        with recording(layers) as tape:
            sums.add(tape, scores(slice(0, 4)), labels[:4], mask[:4])
        bases = kfac_bases(layers, sums.sums, 4) if bases is None else ekfac_bases(layers, bases, sums.sums, 4)
    inverses = method.inverses(layers, bases)
    held = HeldTests(layers, inverses, 1, 4, True, 2**20)
    with recording(layers) as tape:
        held.add(tape, scores(slice(4, 5)), Targets(labels[4:]))
    with recording(layers) as tape:
        found, own = held.scores(tape, scores(slice(0, 4)), labels[:4])

    experts = lm.model.layers[0].mlp.experts
    weights = [experts.gate_up_proj, experts.down_proj]
    rows = []
    for example in range(5):
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            loss = cross_entropy(scores(slice(example, example + 1)), labels[example : example + 1])
            rows.append([g.detach() for g in torch.autograd.grad(loss, weights)])
            for weight in weights:
                weight.requires_grad_(False)
    expected, idle = torch.zeros(5, dtype=torch.float64), 0
    for number, layer in enumerate(layers):
        side, expert = int("down" in layer.name), int(layer.name.rsplit(".", 1)[1])
        basis = bases[number]
        turned = torch.stack([basis.outputs.T @ gradients[side][expert] @ basis.inputs for gradients in rows])
        mean = turned[:4].square().mean(0)
        torch.testing.assert_close(basis.eigenvalues, mean, rtol=1e-6, atol=1e-12)
        idle += not mean.any()
        if mean.any():
            solved = turned[[4, 0, 1, 2, 3]] / (mean + 0.1 * mean.mean())
            expected[:4] += torch.einsum("ij,nij->n", solved[0], turned[:4])
            expected[4] += (solved[1] * turned[0]).sum()
    assert idle  # of 8 experts and 12 tokens
    torch.testing.assert_close(found[0], expected[:4], rtol=1e-6, atol=1e-9)
    assert own is not None
    torch.testing.assert_close(own[0], expected[4], rtol=1e-6, atol=1e-9)


def test_covariances_of_an_expert_are_means_over_the_tokens_that_it_sees() -> None:
    """Padding and tokens of other experts are none of them; an expert without a token has nothing, not a NaN."""
    lm: Any = tiny_decoder("mixtral", num_hidden_layers=1, num_local_experts=8, num_experts_per_tok=1).double()
    layers = linear_layers(lm, lm.get_output_embeddings(), "*.gate_up_proj.*")
    ids, labels = torch.randint(3, 90, (3, 4), generator=torch.Generator().manual_seed(4)), torch.tensor([4, 8, 15])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])
    seen: list[tuple[Tensor, ...]] = []
    handle = lm.model.layers[0].mlp.experts.register_forward_pre_hook(lambda m, args: seen.append(args))
    sums = FactorSums(layers, "empirical")
    with recording(layers) as tape:
        sums.add(tape, lm(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -1], labels, mask)
    handle.remove()
    hidden, index, _ = seen[0]
    rows = RowPass(layers, [UNPROJECTED] * 8, [(layer.d_out, layer.d_in) for layer in layers], "example")
    with recording(layers) as tape:
        scores = lm(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -1]
        kept = rows.of_batch(tape, scores, train_cotangents(scores, labels)[None], mask)[1]
    idle = 0
    for number, layer in enumerate(layers):
        own = hidden[(index == number).any(1) & mask.flatten().bool()]
        idle += not len(own)
        for total, count in ((sums.sums[f"{layer.name}/inputs"], sums.sums[f"{layer.name}/tokens"]), kept[number][::2]):
            assert int(count) == len(own)
            torch.testing.assert_close(total, own.T @ own)
    bases = kfac_bases(layers, sums.sums, 3)
    assert idle
    assert sum(not basis.eigenvalues.any() for basis in bases) >= idle
    assert all(bool(basis.eigenvalues.isfinite().all()) for basis in bases)


def test_experts_that_a_fused_call_hides_are_refused_by_name_and_gradients_too_leave_them_out() -> None:
    lm: Any = tiny_decoder("mixtral")

    def fused(hidden_states: Tensor, block: Any) -> Tensor:
        flat = hidden_states.flatten(0, 1)
        _, weight, index = block.gate(flat)
        return block.experts.forward(flat, index, weight).view(hidden_states.shape)

    for layer in lm.model.layers:
        layer.mlp.forward = lambda hidden_states, block=layer.mlp: fused(hidden_states, block)
    said = r"experts in layer 0 of the mixtral model cannot be read: its MixtralSparseMoeBlock .*use_kernels=False"
    with pytest.raises(UserError, match=said):
        Anatomy(lm.base_model)


def test_a_router_that_drops_tokens_is_refused_by_name() -> None:
    lm: Any = tiny_decoder("mixtral")

    class Capacity(type(lm.model.layers[0].mlp.gate)):  # type: ignore[misc]
        """At most four tokens of an expert, the first ones."""

        def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            logits, weight, index = super().forward(hidden_states)
            chosen = torch.nn.functional.one_hot(index, self.num_experts).sum(1)
            late = (chosen.cumsum(0) > 4).gather(1, index)
            return logits, weight.masked_fill(late, 0), index

    for layer in lm.model.layers:
        layer.mlp.gate.__class__ = Capacity
    with pytest.raises(UserError, match=r"router in layer 0 of the mixtral model drops tokens: .*method=gradsim"):
        Anatomy(lm.base_model)


def test_what_activates_units_of_experts_is_refused_before_a_fit() -> None:
    subject = subject_of("mixtral")
    backbone = subject.lm.base_model.to("meta")
    require_parts(backbone, attention=True)
    with pytest.raises(UserError, match=r"mixtral model shows no one up-projection .*units of experts.*site=attn"):
        require_parts(backbone, attention=False, keys=True)
    assert QueryLayers(site="ffn", n_values=2).role == "query"


def test_an_engine_that_refuses_attention_leaves_the_model_as_it_was() -> None:
    subject = subject_of("mimo_v2_flash")
    before = plain_state(subject.lm)
    assert subject.residual is not None
    with pytest.raises(UserError, match="values that are outputs of one linear map"):
        subject.residual.states(subject.batches()[2][1])
    assert plain_state(subject.lm) == before
