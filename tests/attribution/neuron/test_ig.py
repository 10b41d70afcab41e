"""Integrated gradients equals the plain loop of full forwards, on every family, whatever the batch looks like."""

from __future__ import annotations

import pytest
import torch

from tests.combinations import half_long
from tests.families import ALL_MODELS, FAMILY_CONFIGS, random_batch, tiny_engine
from tests.oracles_neuron import integrated_gradients_loop, single
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.path import Path
from twinlens.attribution.neuron.path_integral import integrated_gradients
from twinlens.attribution.neuron.quadrature import nodes_and_weights

PLENTY = 1 << 34
LENGTHS = [9, 5, 12, 7, 3, 12, 1, 8]


def relative_difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "padding", "batch_size"), half_long(ALL_MODELS, ["right", "left", "none"], [1, 8]))
def test_equals_the_plain_loop(name: str, padding: str, batch_size: int) -> None:
    engine = tiny_engine(name)
    lengths = [9] * batch_size if padding == "none" else LENGTHS[:batch_size]
    batch = random_batch(lengths, "right" if padding == "none" else padding)
    nodes, weights = nodes_and_weights("right", 4)
    result = integrated_gradients(engine, batch, Path("activation", "last", "right"), 4, PLENTY)
    for row in {0, batch_size - 1, batch_size // 2}:
        expected = integrated_gradients_loop(engine, [single(batch, row)], nodes, weights, int(result.target[row]))
        assert relative_difference(result.scores[row], expected) < 1e-5


@pytest.mark.parametrize("positions", ["last", "all", "broadcast_last"])
@pytest.mark.parametrize("scaled", ["activation", "pre_activation"])
@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_every_position_and_place(name: str, scaled: str, positions: str) -> None:
    engine = tiny_engine(name)
    if scaled == "pre_activation" and engine.gated:
        with pytest.raises(UserError, match="gated MLP"):
            IntegratedGradients("reference").path(engine)
        return
    batch = random_batch([5, 8, 3], "left")
    nodes, weights = nodes_and_weights("linspace", 3)
    path = Path(scaled, positions, "linspace")
    result = integrated_gradients(engine, {**batch, "target": batch["labels"]}, path, 3, PLENTY)
    for row in range(3):
        expected = integrated_gradients_loop(
            engine, [single(batch, row)], nodes, weights, int(batch["labels"][row]), positions, scaled
        )
        assert relative_difference(result.scores[row], expected) < 1e-5


@pytest.mark.parametrize("path", [Path("activation", "last", "right"), Path("activation", "all", "right")])
def test_chunks_leave_scores_unchanged(path: Path) -> None:
    engine = tiny_engine("gpt2")
    batch = random_batch([6, 9])
    whole = integrated_gradients(engine, batch, path, 5, PLENTY)
    chunked = integrated_gradients(engine, batch, path, 5, 1)
    assert relative_difference(chunked.scores, whole.scores) < 1e-5
    assert torch.allclose(chunked.completeness, whole.completeness, atol=1e-6)


@pytest.mark.parametrize("positions", ["last", "all", "broadcast_last"])
def test_completeness_vanishes_with_the_exact_rule_only(positions: str) -> None:
    engine = tiny_engine("llama")
    batch = random_batch([6, 9])
    exact = integrated_gradients(engine, batch, Path("activation", positions, "gauss"), 24, PLENTY)
    coarse = integrated_gradients(engine, batch, Path("activation", positions, "right"), 2, PLENTY)
    assert float(exact.completeness.max()) < 1e-4
    assert float(coarse.completeness.max()) > 10 * float(exact.completeness.max())
    assert exact.completeness.shape == (2, engine.n_layers)


def test_ranking_is_best_first_and_addresses_the_dense_scores() -> None:
    engine = tiny_engine("opt")
    batch = random_batch([6, 9, 4])
    dense = integrated_gradients(engine, batch, Path("activation", "last", "right"), 20, PLENTY)
    ranked = IntegratedGradients("paper", top_k=10).attribute(engine, batch, PLENTY)
    assert ranked.layer.shape == (3, 10)
    for row in range(3):
        picked = dense.scores[row, ranked.layer[row].long(), ranked.unit[row].long()]
        assert torch.equal(picked, ranked.score[row])
        best = dense.scores[row].flatten().sort(descending=True).values[:10]
        assert torch.equal(best, ranked.score[row])


def test_reference_lists_stop_at_a_tenth_of_the_best() -> None:
    engine = tiny_engine("gpt2")
    ranked = IntegratedGradients("reference", top_k=40).attribute(engine, random_batch([6, 9]), PLENTY)
    kept = ranked.layer >= 0
    assert bool((ranked.score[kept] > 0).all())
    assert bool((ranked.score > 0.1 * ranked.score[:, :1])[kept].all())
    assert not bool(kept.all())


def test_reference_broadcasts_for_bloom_and_neox_only() -> None:
    resolved = {name: IntegratedGradients("reference").path(tiny_engine(name)).positions for name in ("opt", "bloom")}
    assert resolved == {"opt": "last", "bloom": "broadcast_last"}
    assert IntegratedGradients("eleuther").path(tiny_engine("gpt_neox")).positions == "last"


@pytest.mark.parametrize(("preset", "n_steps"), [("papr", 20), ("paper", 0)])
def test_bad_settings_are_refused(preset: str, n_steps: int) -> None:
    with pytest.raises(UserError, match="expected"):
        IntegratedGradients(preset, n_steps)  # type: ignore[arg-type]
