"""Variant rows equal full forwards, and nothing about the batch or the chunks matters."""

from __future__ import annotations

import pytest
import torch

from tests.families import ALL_MODELS, FAMILY_CONFIGS, random_batch, tiny_engine
from tests.oracles_neuron import forward_scores, layer_values, single


def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((got - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", ALL_MODELS)
@pytest.mark.parametrize("padding", ["right", "left"])
def test_states_equal_single_forwards(name: str, padding: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([7, 4, 10, 1], padding)
    states = engine.states(batch)
    for row in range(4):
        example = single(batch, row)
        with torch.no_grad():
            assert close(states.scores[row], forward_scores(engine, example))
        for layer in range(engine.n_layers):
            assert close(states.activation[row, layer], layer_values(engine, example, layer)[-1])


@pytest.mark.parametrize("name", ALL_MODELS)
def test_unedited_rows_give_the_clean_scores_wherever_they_enter(name: str) -> None:
    engine = tiny_engine(name)
    states = engine.states(random_batch([9, 5, 12], "left"))
    rows = [states.residual[:, layer : layer + 1] for layer in range(engine.n_layers + 1)]
    scores = engine.score_rows(states, rows)
    assert scores.shape[:2] == (3, engine.n_layers + 1)
    assert close(scores, states.scores[:, None].expand_as(scores))


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_rows_do_not_see_each_other(name: str) -> None:
    engine = tiny_engine(name)
    states = engine.states(random_batch([9, 5]))
    clean = states.residual[:, :1]
    noise = torch.randn(2, 3, clean.shape[-1], generator=torch.Generator().manual_seed(0))
    empty = [None] * engine.n_layers
    alone = engine.score_rows(states, [clean, *empty])
    together = engine.score_rows(states, [torch.cat([noise, clean, noise], 1), *empty])
    assert close(together[:, 3:4], alone)
    assert not torch.allclose(together[:, :1], alone, atol=1e-3)


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_scores_do_not_depend_on_batch_or_order(name: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([6, 11, 3, 8])
    together = engine.states(batch)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = engine.states({key: value[order] for key, value in batch.items()})
    assert close(shuffled.scores, together.scores[order])
    assert close(shuffled.activation, together.activation[order])


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_edits_of_every_layer_equal_a_full_forward(name: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([6, 9], "left")
    states = engine.states(batch)
    factors = [0.5, 0.0, 2.0]
    scores = engine.score_edits(
        states, lambda layer, act: act * torch.tensor(factors)[:, None].to(act), len(factors)
    ).detach()
    for row in range(2):
        for column, factor in enumerate(factors):
            expected = _all_layers_scaled(engine, single(batch, row), factor)
            assert close(scores[row, column], expected)


def _all_layers_scaled(engine, example, factor: float) -> torch.Tensor:
    handles = []

    def scale(module: torch.nn.Module, args: tuple) -> tuple:
        tokens = args[0].reshape(-1, args[0].shape[-1]).clone()
        tokens[-1] *= factor
        return (tokens.reshape(args[0].shape),)

    for block in engine.anatomy.blocks:
        handles.append(engine.anatomy.down_projection(block).register_forward_pre_hook(scale))
    try:
        with torch.no_grad():
            return forward_scores(engine, example)
    finally:
        for handle in handles:
            handle.remove()


def test_hooks_are_gone_after_every_call_also_after_an_error() -> None:
    engine = tiny_engine("gpt2")
    batch = random_batch([5, 5])
    states = engine.states(batch)

    def fail(layer: int, activation: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("edit failed")

    with pytest.raises(RuntimeError, match="edit failed"):
        engine.score_edits(states, fail, 1)
    hooks = [
        hook
        for module in engine.anatomy.backbone.modules()
        for hook in (*module._forward_hooks, *module._forward_pre_hooks)
    ]
    assert hooks == []
