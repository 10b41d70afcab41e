"""Integrated gradients of multiple choice equals the plain loop: one sequence edited, or all along one path."""

from __future__ import annotations

import pytest
import torch

from tests.combinations import half_long
from tests.families import choice_batch, choice_engine
from tests.oracles_neuron import integrated_gradients_loop, sequences_of
from twinlens.attribution.neuron.ig import PRESETS, IntegratedGradients
from twinlens.attribution.neuron.path import Path
from twinlens.attribution.neuron.path_integral import integrated_gradients
from twinlens.attribution.neuron.quadrature import nodes_and_weights

PLENTY = 1 << 34
PADDED = [("left", 3), ("right", 3), ("right", 1)]
"""Side of the padding, and rows of the batch."""
LENGTHS = [[6, 9, 7], [4, 4, 11], [8, 3, 1]]


def relative_difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("name", "choices", "positions", "padded"),
    half_long(["gpt2", "opt", "bloom", "llama"], ["predicted", "all"], ["last", "all"], PADDED),
)
def test_equals_the_plain_loop(name: str, choices: str, positions: str, padded: tuple[str, int]) -> None:
    padding, batch_size = padded
    engine = choice_engine(name, choices)  # type: ignore[arg-type]
    batch = choice_batch(LENGTHS[:batch_size], padding)
    path = Path("activation", positions, "right")  # type: ignore[arg-type]
    nodes, weights = nodes_and_weights("right", 3)
    for budget in (PLENTY, 1):
        result = integrated_gradients(engine, batch, path, 3, budget)
        assert result.scores.shape == (batch_size, engine.n_layers, engine.n_neurons)
        for row in {0, batch_size - 1}:
            target = int(result.target[row])
            edited = [target] if choices == "predicted" else None
            sequences = sequences_of(batch, row)
            expected = integrated_gradients_loop(
                engine.engine, sequences, nodes, weights, target, positions, edited=edited
            )
            assert relative_difference(result.scores[row], expected) < 1e-5


@pytest.mark.parametrize("choices", ["predicted", "all"])
def test_a_target_takes_its_own_choices_sequence(choices: str) -> None:
    engine = choice_engine("gpt_neox", choices)  # type: ignore[arg-type]
    batch = choice_batch(LENGTHS)
    batch["labels"] = (integrated_gradients(engine, batch, PRESETS["paper"], 1, PLENTY).target + 1) % 3
    result = integrated_gradients(engine, {**batch, "target": batch["labels"]}, PRESETS["paper"], 3, PLENTY)
    nodes, weights = nodes_and_weights("right", 3)
    assert torch.equal(result.target, batch["labels"])
    for row in range(3):
        gold = int(batch["labels"][row])
        edited = [gold] if choices == "predicted" else None
        sequences = sequences_of(batch, row)
        expected = integrated_gradients_loop(engine.engine, sequences, nodes, weights, gold, edited=edited)
        assert relative_difference(result.scores[row], expected) < 1e-5


def test_the_reference_preset_attributes_the_best_sequences_raw_score() -> None:
    engine = choice_engine("opt")
    batch = choice_batch(LENGTHS)
    method = IntegratedGradients("reference", n_steps=3)
    path = method.path(engine)
    result = integrated_gradients(engine, batch, path, 3, PLENTY)
    nodes, weights = nodes_and_weights("linspace", 3)
    assert method.describe(engine)["unit"] == "score"
    assert IntegratedGradients().describe(engine)["unit"] == "probability"
    for row in range(3):
        target = int(result.target[row])
        expected = integrated_gradients_loop(
            engine.engine,
            sequences_of(batch, row),
            nodes,
            weights,
            target,
            "last",
            "pre_activation",
            [target],
            raw=True,
        )
        assert relative_difference(result.scores[row], expected) < 1e-5


@pytest.mark.parametrize("choices", ["predicted", "all"])
@pytest.mark.parametrize("positions", ["last", "all", "broadcast_last"])
def test_completeness_vanishes_with_the_exact_rule(choices: str, positions: str) -> None:
    engine = choice_engine("llama", choices)  # type: ignore[arg-type]
    batch = choice_batch(LENGTHS)
    exact = integrated_gradients(engine, batch, Path("activation", positions, "gauss"), 24, PLENTY)  # type: ignore[arg-type]
    coarse = integrated_gradients(engine, batch, Path("activation", positions, "right"), 2, PLENTY)  # type: ignore[arg-type]
    assert float(exact.completeness.max()) < 1e-4
    assert float(coarse.completeness.max()) > 10 * float(exact.completeness.max())
