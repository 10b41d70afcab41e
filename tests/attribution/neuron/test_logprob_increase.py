"""Scores of neurons, heads and layers equal plain loops on every family; identities hold; Table 1 of the paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, case, close, engine_of
from tests.oracles_neuron_level import attention_vector, ffn_score, head_vector, lp
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron import bounded_search
from twinlens.attribution.neuron.bounded_search import search_bytes, top_units
from twinlens.attribution.neuron.increase import dense_bytes, dense_increases, vector_increases
from twinlens.attribution.neuron.logprob_increase import (
    attention_units,
    ffn_units,
    head_increases,
    head_position_increases,
    head_vectors,
    layer_increases,
    segment_curve,
)
from twinlens.attribution.neuron.readout import Readout, choice_readout
from twinlens.attribution.neuron.static_scores import SCORES, best_neurons, dense_scores, gradients

UNITS = range(0, 48, 5)
BATCHES = [("left", 3), ("right", 3), ("right", 1)]


@pytest.fixture(params=["row by row", "products shared"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either form of the search's exact scores, whatever the vocabulary."""
    if request.param == "products shared":
        monkeypatch.setattr(bounded_search, "OUTPUTS_FROM", 1)


def cotangent(case_) -> torch.Tensor:
    """Gradient of the targets' log-probabilities at the scores."""
    return one_hot(case_.target, case_.states.scores.shape[1]) - case_.states.scores.softmax(-1)


def dense(case_, score: str = "logprob_increase", units=None, mode: str = "corrected", budget: int = PLENTY):
    units = ffn_units(case_.engine, case_.states) if units is None else units
    gradient = gradients(case_.engine, case_.batch, cotangent(case_), PLENTY) if score == "grad_x_act" else None
    layers = dict(dense_scores(case_.readout(mode), units, score, budget, gradient))
    return torch.stack([layers[layer] for layer in range(case_.engine.n_layers)], 1)


@pytest.mark.parametrize("score", [s for s in SCORES if s != "grad_x_act"])
@pytest.mark.parametrize("name", FAMILIES)
def test_ffn_scores_equal_the_loop(name: str, score: str) -> None:
    for padding, size in BATCHES:
        c = case(name, padding, size)
        found = dense(c, score)[..., 0]
        for row, parts in enumerate(c.parts):
            target = int(c.target[row])
            expected = [
                [ffn_score(c.anatomy, c.head, parts, layer, unit, target, score) for unit in UNITS]
                for layer in range(c.engine.n_layers)
            ]
            assert close(found[row][:, list(UNITS)], torch.tensor(expected))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_notebook_mode_leaves_out_the_final_bias(name: str) -> None:
    c = case(name)
    expected = [ffn_score(c.anatomy, c.head, c.parts[0], 1, unit, 3, "logprob_increase", False) for unit in UNITS]
    found = dense(c, mode="notebook")[0, 1, list(UNITS), 0]
    assert close(found, torch.tensor(expected))
    same = torch.allclose(found, dense(c)[0, 1, list(UNITS), 0], rtol=1e-3)
    assert same == (name == "llama")  # RMS norms have no bias


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_times_activation_is_the_slope_of_scaling_the_coefficient(name: str) -> None:
    c = case(name)
    found = dense(c, "grad_x_act")[..., 0]
    down = c.anatomy.down_projection(c.anatomy.blocks[1])
    shape = c.batch["attention_mask"].shape
    answers = torch.zeros(shape).scatter_(1, c.states.position[:, None], 1.0)
    for unit in (0, 17):
        scale = torch.ones(len(c.target), requires_grad=True)

        def hook(module, args, unit=unit, scale=scale):
            rows = args[0].reshape(*shape, -1)
            column = torch.where(answers > 0, rows[..., unit] * scale[:, None], rows[..., unit])
            rows = torch.cat([rows[..., :unit], column[..., None], rows[..., unit + 1 :]], -1)
            return (rows.reshape(args[0].shape),)

        handle = down.register_forward_pre_hook(hook)
        hidden = c.engine._run(c.batch)[torch.arange(len(shape) + 1), c.states.position]
        handle.remove()
        log_prob = c.head(hidden).log_softmax(-1).gather(1, c.target[:, None]).sum()
        (expected,) = torch.autograd.grad(log_prob, scale)
        assert torch.allclose(found[:, 1, unit], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_neurons_heads_and_positions_equal_the_loop(name: str) -> None:
    for padding, size in BATCHES:
        c = case(name, padding, size)
        units = attention_units(c.engine, c.states)
        neurons = dense(c, units=units)
        by_head = head_increases(c.engine, c.states, c.readout(), PLENTY)
        by_position = head_position_increases(c.engine, c.states, c.readout(), PLENTY)
        for row, parts in enumerate(c.parts):
            start, n_tokens, target = c.first_token(row), len(parts.output), int(c.target[row])
            final = parts.leaving[-1]
            for layer in range(c.engine.n_layers):
                x = parts.entering[layer][-1]
                before = lp(c.anatomy, c.head, x, final, target)
                for head in (0, 3):
                    vectors = [head_vector(c.anatomy, parts, layer, head, p) for p in range(n_tokens)]
                    expected = [lp(c.anatomy, c.head, x + v, final, target) - before for v in vectors]
                    found = by_position[row, layer, head, start : start + n_tokens]
                    assert close(found, torch.tensor(expected), 1e-4)
                    whole = lp(c.anatomy, c.head, x + torch.stack(vectors).sum(0), final, target) - before
                    assert float(by_head[row, layer, head]) == pytest.approx(whole, abs=2e-5)
                    for dim in (0, c.engine.head_dim - 1):
                        v = [attention_vector(c.anatomy, parts, layer, head, dim, p) for p in range(n_tokens)]
                        expected = [lp(c.anatomy, c.head, x + u, final, target) - before for u in v]
                        unit = head * c.engine.head_dim + dim
                        found = neurons[row, layer, unit, start : start + n_tokens]
                        assert close(found, torch.tensor(expected), 1e-4)
            outside = c.batch["attention_mask"][row] == 0
            assert bool((neurons[row][..., outside] == 0).all())
            assert bool((by_position[row][..., outside] == 0).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_equal_the_loop_and_telescope(name: str) -> None:
    c = case(name)
    readout = c.readout()
    attention, mlp = layer_increases(c.states, readout, PLENTY)
    for row, parts in enumerate(c.parts):
        target, final = int(c.target[row]), parts.leaving[-1]
        for layer in range(c.engine.n_layers):
            x = parts.entering[layer][-1]
            between = x + parts.attention_output[layer][-1]  # also where the MLP runs beside the attention
            after = between + parts.mlp_output[layer][-1]
            points = [lp(c.anatomy, c.head, v, final, target) for v in (x, between, after)]
            assert float(attention[row, layer]) == pytest.approx(points[1] - points[0], abs=2e-5)
            assert float(mlp[row, layer]) == pytest.approx(points[2] - points[1], abs=2e-5)
    total = (attention + mlp).sum(1)
    ends = readout.log_prob(c.states.residual[:, -1]) - readout.log_prob(c.states.residual[:, 0])
    assert torch.allclose(total, ends, atol=5e-5)
    model = c.states.scores.log_softmax(-1).gather(1, c.target[:, None])[:, 0]
    assert torch.allclose(readout.log_prob(c.states.residual[:, -1]), model, atol=2e-5)
    curve = segment_curve(c.states, readout)
    assert curve.shape == (len(c.target), 61)
    assert torch.allclose(curve[:, -1] - curve[:, 0], ends, atol=5e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_sub_values_and_bias_are_the_modules_output(name: str) -> None:
    c = case(name)
    for layer, block in enumerate(c.anatomy.blocks):
        down, out = c.anatomy.down_projection(block), c.anatomy.attention_output(block)
        ffn = c.states.activation[:, layer] @ c.engine.values(layer) + (0 if down.bias is None else down.bias)
        assert close(ffn, c.states.mlp_output[:, layer])
        vectors = head_vectors(c.engine, c.states, layer)
        bias = 0 if out.bias is None else out.bias
        assert close(vectors.sum(1) + bias, c.states.attention_output[:, layer])
        assert close(head_vectors(c.engine, c.states, layer, True).sum(2), vectors)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("score", ["logprob_increase", "log_prob", "prob_increase"])
def test_the_search_finds_what_sorting_all_finds(name: str, score: str) -> None:
    c = case(name)
    for units in (ffn_units(c.engine, c.states), attention_units(c.engine, c.states)):
        expected = dense(c, score, units).flatten(1).sort(dim=1, descending=True, stable=True)
        top = top_units(c.readout(), units, 7, PLENTY, score)
        assert bool(top.certified.all())
        assert close(top.score, expected.values[:, :7])
        place = (top.layer * units.coefficient.shape[2] + top.unit) * units.coefficient.shape[3]
        place = place + (top.position if units.positional else 0)
        assert close(expected.values[:, :7], dense(c, score, units).flatten(1).gather(1, place.long()))
        assert int(top.evaluated.max()) < units.coefficient[0].numel() / 2


@pytest.mark.usefixtures("products")
def test_a_longer_list_is_found_from_a_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    c, scored = case("gpt2"), []
    exact = bounded_search._exact
    monkeypatch.setattr(bounded_search, "_exact", lambda *given: (scored.append(len(given[4])), exact(*given))[1])
    for units in (ffn_units(c.engine, c.states), attention_units(c.engine, c.states)):
        short, long = (top_units(c.readout(), units, k, PLENTY) for k in (7, 20))
        alone = sum(scored)
        scored.clear()
        found = top_units(c.readout(), units, 20, PLENTY, known=short)
        assert torch.equal(found.places(*units.coefficient.shape[2:]), long.places(*units.coefficient.shape[2:]))
        assert close(found.score, long.score)
        assert torch.equal(found.evaluated, long.evaluated)
        assert bool(found.certified.all())
        assert sum(scored) == int(long.evaluated.sum()) - 7 * len(c.target) < alone
        scored.clear()


@pytest.mark.usefixtures("products")
def test_the_search_survives_ties_and_lists_longer_than_all() -> None:
    c = case("opt")  # ReLU: many coefficients are exactly 0
    units = ffn_units(c.engine, c.states)
    count = units.coefficient[0].numel()
    top = top_units(c.readout(), units, count + 5, PLENTY)
    expected = dense(c).flatten(1).sort(dim=1, descending=True, stable=True)
    assert top.score.shape == (3, count)
    idle = int((units.coefficient == 0).flatten(1).sum(1)[0])
    assert idle > 10
    assert int(top.evaluated[0]) == count - idle
    assert close(top.score, expected.values)
    at_zero = top.score[0] == 0
    zero_places = (top.layer[0] * c.engine.n_neurons + top.unit[0])[at_zero]
    assert bool((zero_places.diff() > 0).all())


@pytest.mark.usefixtures("products")
def test_overflowing_exponentials_are_mended() -> None:
    c = case("gpt2")
    units = ffn_units(c.engine, c.states)
    coefficient = units.coefficient.clone()
    coefficient[0, 1, :4] = 4000.0
    units = replace(units, coefficient=coefficient)
    x, final = c.parts[0].entering[1][-1] + c.parts[0].attention_output[1][-1], c.parts[0].leaving[-1]
    before = lp(c.anatomy, c.head, x, final, 3)
    expected = [lp(c.anatomy, c.head, x + 4000.0 * row.double(), final, 3) - before for row in c.engine.values(1)[:4]]
    assert dense(c, units=units)[0, 1, :4, 0].tolist() == pytest.approx(expected, rel=1e-4)
    top = top_units(c.readout(), units, c.engine.n_neurons * 3, PLENTY)
    assert bool(torch.isfinite(top.score).all())
    assert float(top.score[0, -1]) == pytest.approx(min(expected), rel=1e-4)


@pytest.mark.usefixtures("products")
def test_budgets_change_nothing_and_too_small_ones_are_refused() -> None:
    c = case("llama")
    for units in (ffn_units(c.engine, c.states), attention_units(c.engine, c.states)):
        n_units, n_positions = units.coefficient.shape[2:]
        small = dense_bytes(3, n_units, n_positions, 60, 32) + 3000
        assert close(dense(c, units=units, budget=small), dense(c, units=units), 1e-5)
        enough = search_bytes(3, n_units, n_positions, 60, 32) + 48 * 32 * 12 + 92 * 16 * 3
        tight, loose = (top_units(c.readout(), units, 6, b) for b in (enough, PLENTY))
        assert torch.equal(tight.unit, loose.unit)
        assert close(tight.score, loose.score)
        with pytest.raises(UserError, match="raise memory_budget"):
            top_units(c.readout(), units, 6, 1000)
        with pytest.raises(UserError, match="raise memory_budget"):
            dense(c, units=units, budget=100)


def test_half_precision_ranks_as_the_same_weights_in_float32() -> None:
    c = case("llama")
    units, readout = ffn_units(c.engine, c.states), c.readout()
    half = torch.bfloat16
    weight = readout.weight.to(half)
    narrow = Readout(readout.direction, readout.scale, readout.target, readout.head, weight)
    wide = Readout(readout.direction, readout.scale, readout.target, readout.head, weight.float())
    units_half = type(units)(units.base.to(half), units.coefficient.to(half), lambda i: units.values(i).to(half), False)
    units_wide = type(units)(
        units_half.base.float(), units_half.coefficient.float(), lambda i: units.values(i).to(half).float(), False
    )
    a, b = top_units(narrow, units_half, 10, PLENTY), top_units(wide, units_wide, 10, PLENTY)
    assert torch.equal(a.unit, b.unit)
    assert a.score.dtype == torch.float32
    assert close(a.score, b.score, 1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_best_neurons_are_the_sorted_dense_scores(score: str) -> None:
    c = case("gpt2")
    units = ffn_units(c.engine, c.states)
    gradient = gradients(c.engine, c.batch, cotangent(c), PLENTY) if score == "grad_x_act" else None
    top = best_neurons(c.readout(), units, score, 9, PLENTY, gradient)
    every = dense(c, score).flatten(1)
    ordered = every.sort(dim=1, descending=True, stable=True)
    assert close(top.score, ordered.values[:, :9])
    assert bool((top.position == -1).all())
    if score not in ("logprob_increase", "log_prob", "prob_increase"):
        assert torch.equal((top.layer * c.engine.n_neurons + top.unit).long(), ordered.indices[:, :9])


def test_heads_that_are_not_linear_take_the_dense_form() -> None:
    c = case("qwen2")
    torch.manual_seed(5)
    mlp = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)).requires_grad_(False)
    engine = type(c.engine)(c.anatomy, mlp)
    target = torch.tensor([0, 3, 1])
    readout = Readout(engine.final_direction, 1 / c.states.statistic, target, engine.head, None)
    units = ffn_units(engine, c.states)
    found = torch.stack([x for _, x in dense_increases(readout, units, PLENTY)], 1)[..., 0]
    x = c.states.residual[1, 2] + c.states.attention_output[1, 2]
    moved = x + c.states.activation[1, 2, 11] * engine.values(2)[11]
    norm = c.anatomy.last_norm
    before, after = (mlp(norm.weight * v / c.states.statistic[1]).log_softmax(-1)[3] for v in (x, moved))
    assert float(found[1, 2, 11]) == pytest.approx(float(after - before), abs=1e-5)
    assert best_neurons(readout, units, "logprob_increase", 5, PLENTY).score.shape == (3, 5)
    assert layer_increases(c.states, readout, PLENTY)[0].shape == (3, 3)
    for score in ("inverse_rank", "prob_increase"):
        assert best_neurons(readout, units, score, 5, PLENTY).score.shape == (3, 5)
    with pytest.raises(UserError, match="not linear"):
        top_units(readout, units, 5, PLENTY)


@pytest.mark.parametrize("linear", [True, False])
def test_other_choices_are_constants_under_a_common_softmax(linear: bool) -> None:
    c = case("llama")
    torch.manual_seed(6)
    last = torch.nn.Linear(32, 1)
    head = (last if linear else torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh(), last)).requires_grad_(
        False
    )
    engine = type(c.engine)(c.anatomy, head)
    others = torch.tensor([[0.7, -0.4], [0.1, 0.2], [-1.0, 2.0]])
    readout = choice_readout(engine, c.states, others)
    assert readout.linear == linear
    top = best_neurons(readout, ffn_units(engine, c.states), "logprob_increase", 4, PLENTY)
    for row in range(3):
        layer, unit = int(top.layer[row, 0]), int(top.unit[row, 0])
        x = c.states.residual[row, layer] + c.states.attention_output[row, layer]
        moved = x + c.states.activation[row, layer, unit] * engine.values(layer)[unit]
        own = [head(engine.final_direction(v) / c.states.statistic[row]) for v in (x, moved)]
        before, after = (torch.cat([value, others[row]]).log_softmax(0)[0] for value in own)
        assert float(top.score[row, 0]) == pytest.approx(float(after - before), abs=1e-5)


TABLE_1 = [
    ([1, 1, 1, 3], [0.01, 0.02, 0.05, 0.93]),
    ([3, 1, 1, 1], [0.20, 0.07, 0.20, 0.53]),
    ([6, 4, 4, 4], [0.20, 0.07, 0.20, 0.53]),
    ([6, 2, 2, 2], [0.64, 0.03, 0.09, 0.23]),
    ([-6, -2, -2, -2], [0.00, 0.09, 0.24, 0.67]),
]


@pytest.mark.parametrize(("added", "published"), TABLE_1)
def test_table_1_of_the_paper(added: list[int], published: list[float]) -> None:
    x, v = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([added], dtype=torch.float32)
    found = []
    for token in range(4):
        target = torch.tensor([token])
        readout = Readout(lambda t: t, torch.ones(1), target, torch.nn.Identity(), torch.eye(4))
        assert readout.scores(x)[0].softmax(-1).tolist() == pytest.approx([0.03, 0.09, 0.24, 0.64], abs=5e-3)
        increase = vector_increases(readout, x[:, None], v[:, None, None], PLENTY)
        found.append(float((readout.log_prob(x) + increase[:, 0, 0]).exp()))
    assert found == pytest.approx(published, abs=8e-3)  # the paper cuts some digits where others are rounded


def test_an_unknown_score_is_refused_with_the_known_ones() -> None:
    c = case("gpt2")
    with pytest.raises(UserError, match="expected one of logprob_increase"):
        next(iter(dense_scores(c.readout(), ffn_units(c.engine, c.states), "magic", PLENTY)))
    with pytest.raises(UserError, match="site=ffn"):
        next(iter(dense_scores(c.readout(), attention_units(c.engine, c.states), "grad_x_act", PLENTY)))
    assert engine_of("gpt2").bytes_per_example(8) > engine_of("gpt2").bytes_per_example(8, attention=False)
