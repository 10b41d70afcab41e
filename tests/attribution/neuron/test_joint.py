"""Attribution patching and joint integrated gradients equal autograd through plain forwards with masks on neurons."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.combinations import half_long
from tests.encoders import save_encoder
from tests.families import ALL_MODELS, choice_batch, choice_engine, random_batch, tiny_engine
from tests.oracles_joint import joint_loop, masked_phi, ones, readout_loop
from tests.oracles_neuron import answer_activations, sequences_of, single
from tests.served_encoders import LAYERS, TEXTS, Encoder, Plain, batches
from twinlens.attribution.completions import Completions
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, ExampleResidualModel, example_batch
from twinlens.attribution.neuron.ablation import Ablation
from twinlens.attribution.neuron.atp import AttributionPatching
from twinlens.attribution.neuron.completion_scores import completion_scores
from twinlens.attribution.neuron.ig_joint import JointIntegratedGradients
from twinlens.attribution.neuron.joint import JointMethod
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.attribution.neuron.ranking import NeuronScores

PLENTY = 1 << 34
ALL = 10_000
"""More neurons than the tiny models have."""
STEPS = 3


def methods(site: str, intervention: str = "zero") -> list[JointMethod]:
    """Both, with lists of all neurons."""
    return [
        AttributionPatching(intervention, site, "linear", top_k=ALL),  # type: ignore[arg-type]
        JointIntegratedGradients(STEPS, "right", intervention, site, top_k=ALL),  # type: ignore[arg-type]
    ]


def dense(found: NeuronScores, row: int, site: int, shape: tuple[int, int]) -> Tensor:
    """One example's scores of a site in their places, [layers, units]."""
    here = torch.ones_like(found.layer[row], dtype=torch.bool) if found.site is None else found.site[row] == site
    scores = torch.zeros(shape)
    scores[found.layer[row][here].long(), found.unit[row][here].long()] = found.score[row][here]
    return scores


def close(got: Tensor, expected: Tensor, tolerance: float = 2e-5) -> bool:
    return float((got - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize(("name", "padding", "site"), half_long(ALL_MODELS, ["right", "left"], ["ffn", "both"]))
def test_gradients_equal_autograd_through_plain_forwards(name: str, padding: str, site: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([7, 4], padding)
    for method in methods(site):
        found = method.attribute(engine, batch, PLENTY)
        assert found.target is not None
        for row in range(2):
            asked = int(found.target[row]), None
            expected = joint_loop(engine, [single(batch, row)], [0], site, method.points, asked)
            for number, (key, width) in enumerate((("ffn", engine.n_neurons), ("attn", engine.n_attention))):
                if key in expected:
                    assert close(dense(found, row, number, (engine.n_layers, width)), expected[key])


@pytest.mark.parametrize("intervention", ["mean", "resample"])
def test_neurons_are_held_against_what_the_sample_says(intervention: str) -> None:
    engine = tiny_engine("llama")
    batch = {**random_batch([6, 9]), "target": torch.tensor([1, 0]), "against": torch.tensor([0, 2])}
    activation = torch.randn(4, 1, engine.n_layers, engine.n_neurons, generator=torch.manual_seed(1))
    sample = Reference(torch.tensor([0, 1, 5, 8]), activation, of_explained=True)
    donors = sample.donors(batch["index"], 0)
    for method in methods("ffn", intervention):
        assert method.reads_reference
        assert not method.adds_up
        found = method.with_reference(sample).attribute(engine, batch, PLENTY)
        for row in range(2):
            off = activation.mean(0)[0] if intervention == "mean" else activation[donors[row], 0]
            asked = int(batch["target"][row]), int(batch["against"][row])
            expected = joint_loop(engine, [single(batch, row)], [0], "ffn", method.points, asked, off)["ffn"]
            assert close(dense(found, row, 0, (engine.n_layers, engine.n_neurons)), expected)


@pytest.mark.parametrize("choices", ["predicted", "all"])
def test_choices_are_edited_alone_or_together(choices: str) -> None:
    engine = choice_engine("gpt2", choices)  # type: ignore[arg-type]
    batch = choice_batch([[6, 9, 7], [4, 4, 11]])
    for method in methods("ffn"):
        found = method.attribute(engine, batch, PLENTY)
        assert found.target is not None
        for row in range(2):
            target = int(found.target[row])
            edited = [target] if choices == "predicted" else [0, 1, 2]
            sequences = sequences_of(batch, row)
            expected = joint_loop(engine.engine, sequences, edited, "ffn", method.points, (target, None))["ffn"]
            assert close(dense(found, row, 0, (engine.n_layers, engine.n_neurons)), expected)


@pytest.mark.parametrize(("name", "site"), half_long(ALL_MODELS, ["ffn", "attn"]))
def test_behind_the_last_block_everything_is_computed_anew(name: str, site: str) -> None:
    engine = tiny_engine(name)
    batch = {
        **random_batch([7, 4], "left" if site == "ffn" else "right"),
        "target": torch.tensor([1, 0]),
        "against": torch.tensor([0, 2]),
    }
    asked = [{name: batch[name] for name in batch if name != "against"}, batch]
    method = AttributionPatching(site=site, top_k=ALL)  # type: ignore[arg-type]
    n_units = engine.n_neurons if site == "ffn" else engine.n_attention
    for row in range(2):
        other = int(batch["against"][row]) if row else None
        found = dense(
            method.attribute(engine, asked[row], PLENTY), row, int(site == "attn"), (engine.n_layers, n_units)
        )
        expected = readout_loop(engine, [single(batch, row)], [0], site, (int(batch["target"][row]), other))
        assert close(found, expected, 2e-4)


@pytest.mark.parametrize("choices", ["predicted", "all"])
def test_exact_readouts_of_choices_and_of_samples(choices: str) -> None:
    engine = choice_engine("llama", choices)  # type: ignore[arg-type]
    batch, edits = choice_batch([[6, 9, 7], [4, 4, 11]]), 1 if choices == "predicted" else 3
    activation = torch.randn(3, edits, engine.n_layers, engine.n_neurons, generator=torch.manual_seed(1))
    sample = Reference(torch.tensor([3, 5, 8]), activation, of_explained=True)
    found = AttributionPatching("mean", top_k=ALL).with_reference(sample).attribute(engine, batch, PLENTY)
    assert found.target is not None
    for row in range(2):
        target = int(found.target[row])
        edited = [target] if choices == "predicted" else [0, 1, 2]
        off = activation.mean((0, 1))
        expected = readout_loop(engine.engine, sequences_of(batch, row), edited, "ffn", (target, None), off)
        assert close(dense(found, row, 0, (engine.n_layers, engine.n_neurons)), expected, 2e-4)


def test_of_the_last_layer_an_exact_readout_is_ablation_itself() -> None:
    engine, batch = tiny_engine("gpt2"), random_batch([6, 9])
    shape, last = (engine.n_layers, engine.n_neurons), engine.n_layers - 1
    truth, exact, linear = (
        method.attribute(engine, batch, PLENTY)
        for method in (
            Ablation(top_k=ALL), AttributionPatching(top_k=ALL), AttributionPatching(readout="linear", top_k=ALL)
        )
    )  # fmt: skip
    for row in range(2):
        own = dense(truth, row, 0, shape)
        assert float((dense(exact, row, 0, shape) - own)[last].abs().max()) < 1e-5
        assert float((dense(linear, row, 0, shape) - own)[last].abs().max()) > 1e-3


@pytest.mark.parametrize("site", ["ffn", "both"])
def test_joint_scores_add_up_to_what_all_neurons_do(site: str) -> None:
    engine, batch = tiny_engine("gpt2"), random_batch([6, 9])  # smooth, unlike ReLU
    found = JointIntegratedGradients(24, site=site, top_k=ALL).attribute(engine, batch, PLENTY)  # type: ignore[arg-type]
    coarse = JointIntegratedGradients(2, "right", site=site, top_k=ALL).attribute(engine, batch, PLENTY)  # type: ignore[arg-type]
    assert found.target is not None
    assert found.completeness is not None
    assert coarse.completeness is not None
    for row in range(2):
        asked = int(found.target[row]), None
        on, off = (
            float(masked_phi(engine, [single(batch, row)], [0], ones(engine, site, value), asked).detach())
            for value in (1.0, 0.0)
        )
        assert float(found.score[row].sum()) == pytest.approx(on - off, abs=2e-3)
        assert float(found.completeness[row, 0]) == pytest.approx(
            abs(float(found.score[row].sum()) - (on - off)), abs=1e-4
        )
    assert bool((found.completeness == found.completeness[:, :1]).all())
    assert found.completeness.shape == (2, engine.n_layers)
    assert float(coarse.completeness.min()) > 5 * float(found.completeness.max())


def test_chunks_and_what_is_beside_leave_scores_unchanged() -> None:
    engine, batch = tiny_engine("gpt_neox"), random_batch([6, 9], "left")
    for method in [*methods("both"), AttributionPatching(site="both", top_k=ALL)]:
        whole, cut = (method.attribute(engine, batch, budget).score for budget in (PLENTY, 1))
        assert torch.allclose(whole, cut, atol=1e-6)
        alone = method.attribute(engine, {name: part[1:] for name, part in batch.items()}, PLENTY).score
        assert torch.allclose(whole[1:], alone, atol=1e-6)


def test_is_the_first_order_of_ablation_and_the_number_of_gradient_times_activation() -> None:
    """A neuron of which a share is left falls by that share of its slope, where the share is small."""
    engine, batch = tiny_engine("gpt2"), random_batch([6, 9])
    slope = AttributionPatching(readout="linear", top_k=ALL).attribute(engine, batch, PLENTY)
    shape, share = (engine.n_layers, engine.n_neurons), 1e-2
    sample = torch.stack([answer_activations(engine, single(batch, row)) for row in range(2)])
    nearly = Reference(torch.arange(2), (1 - share) * sample[:, None], of_explained=False)
    for row in range(2):
        method = Ablation("mean", top_k=ALL).with_reference(
            Reference(nearly.index, nearly.activation[row : row + 1], False)
        )
        one = {name: part[row : row + 1] for name, part in batch.items()}
        fell = dense(method.attribute(engine, one, PLENTY), 0, 0, shape)
        expected = share * dense(slope, row, 0, shape)
        assert float((fell - expected).abs().max()) <= 0.05 * float(expected.abs().max())
    model, residual = ExampleNeuronModel(6), ExampleResidualModel()
    batch = example_batch()
    own = AttributionPatching(readout="linear", top_k=10).attribute(model, batch, BUDGET)
    other = NeuronScore("grad_x_act", top_k=10).attribute(residual, batch, BUDGET)
    assert torch.equal(own.unit, other.unit)
    torch.testing.assert_close(own.score, other.score, rtol=1e-4, atol=1e-6)


def test_a_completion_has_the_sum_of_its_tokens() -> None:
    model, completions = ExampleNeuronModel(6), Completions([[1, 0, 2], [1]])
    for method in [*methods("both"), AttributionPatching(site="both", top_k=ALL)]:
        assert method.adds_up
        found = completion_scores(method, model, example_batch(), completions, BUDGET, width=3)
        expected = {number: torch.zeros(2, model.n_layers, width) for number, width in enumerate((model.n_neurons, 4))}
        for step in completions.steps(example_batch()):
            single_token = method.attribute(model, step.batch, BUDGET)
            for place, row in enumerate(step.rows.tolist()):
                for number, scores in expected.items():
                    scores[row] += dense(single_token, place, number, tuple(scores.shape[1:]))  # type: ignore[arg-type]
        for row in range(2):
            for number, scores in expected.items():
                got = dense(found, row, number, tuple(scores.shape[1:]))  # type: ignore[arg-type]
                torch.testing.assert_close(got, scores[row], rtol=1e-4, atol=1e-5)


def test_an_encoders_classification_token_is_edited_in_full_forwards(tmp_path: Path) -> None:
    save_encoder("bert", tmp_path)
    encoder = Encoder("bert", tmp_path)
    engine, own = encoder.model().engine(), Plain(encoder, TEXTS[1])
    (batch,) = batches("left", 4)
    for method in methods("both"):
        found = method.attribute(engine, batch, PLENTY)
        assert found.target is not None
        sites = {"ffn": (LAYERS, engine.n_neurons), "attn": (LAYERS, engine.n_attention)}
        expected = {site: torch.zeros(shape) for site, shape in sites.items()}
        for node, weight in zip(*(part.tolist() for part in method.points), strict=True):
            masks = ones(engine, "both", node)
            edits = {
                (site, layer): (lambda row, m=mask[layer]: m * row)
                for site, mask in masks.items()
                for layer in range(LAYERS)
            }
            with torch.enable_grad():
                phi = own.probability(edits)[int(found.target[1])].log()
                slopes = torch.autograd.grad(phi, list(masks.values()))
            for site, slope in zip(masks, slopes, strict=True):
                expected[site] += weight * slope
        for number, (site, shape) in enumerate(sites.items()):
            torch.testing.assert_close(dense(found, 1, number, shape), expected[site], rtol=1e-3, atol=1e-5)


def test_an_encoders_exact_readout_is_ablation_in_the_last_layer(tmp_path: Path) -> None:
    save_encoder("bert", tmp_path)
    encoder = Encoder("bert", tmp_path)
    engine, (batch,) = encoder.model().engine(), batches("right", 4)
    shape, last = (LAYERS, engine.n_neurons), LAYERS - 1
    truth, found = (
        method.attribute(engine, batch, PLENTY) for method in (Ablation(top_k=ALL), AttributionPatching(top_k=ALL))
    )
    for row in range(len(TEXTS)):
        own = dense(truth, row, 0, shape)[last]
        assert float((dense(found, row, 0, shape)[last] - own).abs().max()) <= 1e-4 * float(own.abs().max()) + 1e-6


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="unknown readout 'half' of atp"):
        AttributionPatching(readout="half")  # type: ignore[arg-type]
    for make in (AttributionPatching, JointIntegratedGradients):
        with pytest.raises(UserError, match="unknown site"):
            make(site="mlp")  # type: ignore[arg-type]
        with pytest.raises(UserError, match="site=attn are none"):
            make(intervention="mean", site="attn")
        with pytest.raises(UserError, match="site=both are not all of these"):
            make(intervention="resample", site="both")
        with pytest.raises(UserError, match="reference_size=1"):
            make(intervention="mean", reference_size=1)
    with pytest.raises(UserError, match=r"method\.ig_joint\.n_steps=20"):
        JointIntegratedGradients(n_steps=0)
    with pytest.raises(UserError, match="unknown quadrature rule"):
        JointIntegratedGradients(rule="simpson")  # type: ignore[arg-type]


def test_points_are_those_of_the_rule() -> None:
    nodes, weights = JointIntegratedGradients(4, "gauss").points
    assert all(torch.equal(a, b) for a, b in zip((nodes, weights), nodes_and_weights("gauss", 4), strict=True))
