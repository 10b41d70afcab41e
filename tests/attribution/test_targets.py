"""Targets are the same for both lenses: all forms equal autograd and full forwards, also of a difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, case
from tests.families import choice_batch, choice_engine, random_batch, tiny_backbone, tiny_engine
from tests.oracles import mean_loss_ggn
from tests.oracles_neuron_level import bs
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.neuron.ig import PRESETS
from twinlens.attribution.neuron.increase import dense_increases
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.path_integral import integrated_gradients
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.attribution.neuron.readout import readout_of
from twinlens.attribution.neuron.series_increases import series_increases
from twinlens.attribution.neuron.static_scores import best_neurons
from twinlens.attribution.targets import Targets
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.residual_identities import build_residual

TARGET, AGAINST = torch.tensor([1, 0, 2]), torch.tensor([2, 1, 0])


def phi(scores: Tensor, target: Tensor, against: Tensor | None) -> Tensor:
    """What is explained, [rows], of scores [rows, outputs]."""
    log_probs = scores.log_softmax(-1)
    own = log_probs.gather(1, target[:, None])[:, 0]
    return own if against is None else own - log_probs.gather(1, against[:, None])[:, 0]


@pytest.mark.parametrize("against", [None, AGAINST])
def test_cotangents_are_the_gradient_of_what_is_explained(against: Tensor | None) -> None:
    scores = torch.randn(3, 4, dtype=torch.float64, generator=torch.manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(phi(scores, TARGET, against).sum(), scores)
    torch.testing.assert_close(-logit_cotangents(scores.detach(), TARGET, None, against), gradient)


@pytest.mark.parametrize("against", [None, AGAINST])
@pytest.mark.parametrize("make", [lambda: GradientSimilarity(), lambda: GradientSimilarity(similarity="cosine")])
def test_similarities_are_products_with_the_gradient_of_what_is_explained(
    against: Tensor | None, make: Callable[[], GradientSimilarity]
) -> None:
    torch.manual_seed(1)
    head = torch.nn.Linear(5, 3).double()
    train = HeadInputs(torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2]), head)
    tests = HeadInputs(torch.randn(3, 5, dtype=torch.float64), TARGET, head, against=against)
    method = make()
    scorer = method.prepare(train, 1 << 30)
    found = scorer.scores(scorer.query(tests, torch.arange(3)), 0, 6)

    def gradient(value: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(head.parameters()))])

    rows = [gradient(phi(head(train.features[i : i + 1]), train.labels[i : i + 1], None)[0]) for i in range(6)]
    own = [None if against is None else against[i : i + 1] for i in range(3)]
    asked = [gradient(phi(head(tests.features[i : i + 1]), TARGET[i : i + 1], own[i])[0]) for i in range(3)]
    a, b = torch.stack(asked), torch.stack(rows)
    if method.cosine:
        a, b = torch.nn.functional.normalize(a), torch.nn.functional.normalize(b)
    torch.testing.assert_close(found, a @ b.T, rtol=1e-9, atol=1e-12)


def test_influence_is_the_solved_gradient_of_the_difference() -> None:
    """−∇φᵀ (H + λ)⁻¹ ∇ℓ with everything written out: more training on the row raises φ where it is positive."""
    torch.manual_seed(2)
    head = torch.nn.Linear(4, 3, bias=False).double()
    train = HeadInputs(torch.randn(12, 4, dtype=torch.float64), torch.randint(0, 3, (12,)), head)
    tests = HeadInputs(torch.randn(3, 4, dtype=torch.float64), TARGET, head, against=AGAINST)
    scorer = Influence(damping=0.5, params="weight").prepare(train, 1 << 30)
    found = scorer.scores(scorer.query(tests, torch.arange(3)), 0, 12)

    def gradient(features: Tensor, target: Tensor, against: Tensor | None) -> Tensor:
        return torch.autograd.grad(phi(head(features), target, against)[0], head.weight)[0].flatten()

    hessian = mean_loss_ggn(head, train.features, weights_only=True)
    damping = 0.5 * hessian.diagonal().mean()
    one = [slice(i, i + 1) for i in range(12)]
    rows = torch.stack([-gradient(train.features[i], train.labels[i], None) for i in one])
    asked = torch.stack([gradient(tests.features[i], TARGET[i], AGAINST[i]) for i in one[:3]])
    expected = -asked @ torch.linalg.solve(hessian + damping * torch.eye(12, dtype=torch.float64), rows.T)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neox", "llama", "bloom"])
@pytest.mark.parametrize(("padding", "rows"), [("left", 3), ("right", 1)])
def test_integrated_gradients_of_a_difference_equal_full_forwards(name: str, padding: str, rows: int) -> None:
    engine = tiny_engine(name)
    batch = random_batch([6, 4, 8][:rows], padding)
    target, against = TARGET[:rows] % 2, (TARGET[:rows] + 1) % 2
    asked = {**batch, "target": target, "against": against}
    found = integrated_gradients(engine, asked, PRESETS["paper"], 3, PLENTY)
    nodes, weights = nodes_and_weights("right", 3)
    states = engine.states(batch)
    for layer in range(engine.n_layers):
        whole = torch.zeros(rows, engine.n_neurons)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            point = (states.activation[:, layer] * node).requires_grad_()

            def put(index: int, values: Tensor, here: int = layer, point: Tensor = point) -> Tensor:
                return point[:, None].expand_as(values) if index == here else values

            with torch.enable_grad():
                scores = engine.score_edits(states, put, 1)[:, 0]
                (slope,) = torch.autograd.grad(phi(scores, target, against).sum(), point)
            whole += weight * slope * states.activation[:, layer]
        torch.testing.assert_close(found.scores[:, layer], whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max() + 1))


@pytest.mark.parametrize("choices", ["predicted", "all"])
def test_integrated_gradients_of_a_choice_against_another_are_complete(choices: str) -> None:
    engine = choice_engine("gpt2", choices)  # type: ignore[arg-type]
    batch = choice_batch([[6, 9, 7], [4, 4, 11], [8, 3, 1]])
    found = integrated_gradients(engine, {**batch, "target": TARGET, "against": AGAINST}, PRESETS["gauss"], 12, PLENTY)
    states = engine.states(batch, TARGET)
    for layer in range(engine.n_layers):
        silent = engine.score_edits(states, lambda at, values, here=layer: values * (at != here), 1)[:, 0]
        change = phi(states.scores, TARGET, AGAINST) - phi(silent, TARGET, AGAINST)
        torch.testing.assert_close(found.scores[:, layer].sum(-1), change, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_increases_of_a_difference_equal_the_loop(name: str) -> None:
    found = case(name)
    against = (found.target + 5) % found.head.out_features
    readout = readout_of(found.engine, found.states, found.target, against=against)
    for units in (ffn_units(found.engine, found.states), attention_units(found.engine, found.states)):
        best = best_neurons(readout, units, "logprob_increase", 5, PLENTY)
        series = [layer for _, layer in series_increases(readout, units, PLENTY)]
        for layer, increase in dense_increases(readout, units, PLENTY):
            assert torch.equal(increase, series[layer])
            values = units.values(layer)
            for row in range(len(found.target)):
                final = found.parts[row].leaving[-1]
                for unit, position in ((0, 0), (3, increase.shape[2] - 1)):
                    m = units.coefficient[row, layer, unit, position].double()
                    x = units.base[row, layer].double()
                    moved = x + m * values[unit].double()
                    after, before = (bs(found.anatomy, found.head, v, final) for v in (moved, x))
                    t, a = int(found.target[row]), int(against[row])
                    expected = (after[t] - after[a]) - (before[t] - before[a])
                    assert float(increase[row, unit, position]) == pytest.approx(float(expected), rel=2e-3, abs=2e-5)
            for row in range(len(found.target)):
                here = best.layer[row] == layer
                assert bool((best.score[row][here].max() if here.any() else -torch.inf) <= increase[row].max() + 1e-6)


@torch.no_grad()
def test_gradients_of_choices_go_through_the_softmax_over_all_choices() -> None:
    """Of a choice by itself the softmax is 1 whatever its score, so that its gradient alone would be 0."""
    backbone = tiny_backbone("llama")
    head = torch.nn.Linear(backbone.config.hidden_size, 1, bias=False).requires_grad_(False)
    torch.nn.init.normal_(head.weight, generator=torch.manual_seed(3))
    engine = build_residual(build_anatomy(backbone), head)
    batch = choice_batch([[6, 5, 7], [4, 4, 3]])
    flat = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
    scores = engine.states(flat).scores.view(2, 3)
    target, against = torch.tensor([2, 0]), torch.tensor([0, 1])
    for apart in (None, against):
        asked = {**batch, "target": target} | ({} if apart is None else {"against": apart})
        found = NeuronScore("grad_x_act", top_k=4).attribute(engine, asked, PLENTY)
        torch.testing.assert_close(found.target_prob, scores.softmax(-1).gather(1, target[:, None])[:, 0])
        slope = 1 - found.target_prob if apart is None else torch.ones(2)  # ∂φ / ∂ score of the target's sequence
        own = {name: batch[name][torch.arange(2), target] for name in ("input_ids", "attention_mask")}
        gradient = engine.mlp_gradient(own, torch.ones(2, 1))  # of the score itself
        activation = engine.states(own).activation
        for row in range(2):
            dense = torch.stack(
                [activation[row, i] * (gradient[row, i] @ engine.values(i).T) for i in range(engine.n_layers)]
            )
            best = (slope[row] * dense).flatten().sort(descending=True).values[:4]
            assert float(best[0]) > 0
            torch.testing.assert_close(found.score[row], best, rtol=1e-4, atol=1e-7)


def test_rows_without_a_difference_are_known() -> None:
    targets = Targets(torch.tensor([0, 1, 2]), torch.tensor([0, 2, 2]))
    assert targets.left_out.tolist() == [True, False, True]
    assert not Targets(torch.tensor([0])).left_out.any()
    batch = targets.of_batch({"index": torch.tensor([2, 0])})
    assert (batch["target"].tolist(), batch["against"].tolist()) == ([2, 0], [2, 0])
