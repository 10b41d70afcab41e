"""Integrated gradients of attention neurons equal the plain loop, on every family and readout; nothing about the batch,
the chunks or the other site matters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.combinations import half_long
from tests.families import (
    ALL_MODELS,
    FAMILY_CONFIGS,
    VOCABULARY,
    choice_batch,
    choice_engine,
    random_batch,
    tiny_backbone,
    tiny_engine,
)
from tests.oracles_neuron import integrated_gradients_loop, sequences_of, single
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.path import Path
from twinlens.attribution.neuron.path_integral import integrated_gradients
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.attribution.neuron.ranking import ATTENTION, FFN
from twinlens.attribution.readouts import TokenReadout
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.last_token import LastTokenEngine

PLENTY = 1 << 34
LENGTHS = [9, 5, 12, 1]
NODES, WEIGHTS = nodes_and_weights("right", 4)


def path_of(rule: str = "right", positions: str = "last") -> Path:
    return Path("activation", positions, rule, site="attn")  # type: ignore[arg-type]


def relative_difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "padding"), half_long(ALL_MODELS, ["right", "left"]))
def test_equals_the_plain_loop(name: str, padding: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch(LENGTHS, padding)
    whole = integrated_gradients(engine, batch, path_of(), 4, PLENTY)
    chunked = integrated_gradients(engine, batch, path_of(), 4, 1)
    assert whole.scores.shape == (len(LENGTHS), engine.n_layers, engine.n_attention)
    assert relative_difference(chunked.scores, whole.scores) < 1e-5
    for row in range(len(LENGTHS)):
        target = int(whole.target[row])
        expected = integrated_gradients_loop(engine, [single(batch, row)], NODES, WEIGHTS, target, place="attention")
        assert relative_difference(whole.scores[row], expected) < 1e-5


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_every_position(name: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([5, 8], "left")
    result = integrated_gradients(engine, {**batch, "target": batch["labels"]}, path_of(positions="all"), 4, PLENTY)
    for row in range(2):
        expected = integrated_gradients_loop(
            engine, [single(batch, row)], NODES, WEIGHTS, int(batch["labels"][row]), "all", "attention"
        )
        assert relative_difference(result.scores[row], expected) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neox", "bloom", "llama"])
@pytest.mark.parametrize("choices", ["predicted", "all"])
def test_choices_equal_the_plain_loop(name: str, choices: str) -> None:
    engine = choice_engine(name, choices)  # type: ignore[arg-type]
    batch = choice_batch([[6, 9, 7], [4, 4, 11]], "left")
    result = integrated_gradients(engine, batch, path_of(), 4, PLENTY)
    for row in range(2):
        target = int(result.target[row])
        expected = integrated_gradients_loop(
            engine.engine,
            sequences_of(batch, row),
            NODES,
            WEIGHTS,
            target,
            place="attention",
            edited=[target] if choices == "predicted" else None,
        )
        assert relative_difference(result.scores[row], expected) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "opt", "gpt_neox", "bloom", "llama"])
def test_tokens_equal_the_plain_loop(name: str) -> None:
    backbone = tiny_backbone(name)
    torch.manual_seed(3)
    head = nn.Linear(backbone.config.hidden_size, VOCABULARY, bias=False).requires_grad_(False)
    engine = LastTokenEngine(build_anatomy(backbone), head, TokenReadout.name)
    batch = random_batch([6, 4], "left")
    batch["labels"] = torch.tensor([41, 7])
    result = integrated_gradients(engine, {**batch, "target": batch["labels"]}, path_of(), 4, PLENTY)
    assert torch.equal(result.target, batch["labels"])
    for row in range(2):
        target = int(batch["labels"][row])
        expected = integrated_gradients_loop(engine, [single(batch, row)], NODES, WEIGHTS, target, place="attention")
        assert relative_difference(result.scores[row], expected) < 1e-5


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("name", ["gpt_neox", "bloom"])  # paths of RMS norms are steep, those of ReLU have kinks
def test_completeness_vanishes_with_the_exact_rule_only(name: str, positions: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([6, 9])
    exact = integrated_gradients(engine, batch, path_of("gauss", positions), 24, PLENTY)
    coarse = integrated_gradients(engine, batch, path_of("right", positions), 2, PLENTY)
    assert float(exact.completeness.max()) < 1e-4
    assert float(coarse.completeness.max()) > 10 * float(exact.completeness.max())


def test_lists_of_one_site_and_of_both() -> None:
    engine = tiny_engine("opt")
    batch = random_batch([6, 9, 4])
    dense = {
        site: integrated_gradients(
            engine,
            batch,
            Path("activation", "last", "right", site=site),
            20,
            PLENTY,
        )
        for site in ("ffn", "attn")
    }
    alone = IntegratedGradients(site="attn", top_k=10).attribute(engine, batch, PLENTY)
    both = IntegratedGradients(site="both", top_k=30).attribute(engine, batch, PLENTY)
    assert alone.site is not None
    assert both.site is not None
    assert both.completeness is not None
    assert bool((alone.site == ATTENTION).all())
    assert set(both.site.unique().tolist()) == {FFN, ATTENTION}
    of_layers = torch.stack([found.completeness for found in dense.values()]).amax(0)
    assert torch.equal(both.completeness, of_layers)
    for row in range(3):
        best = torch.cat([found.scores[row].flatten() for found in dense.values()]).sort(descending=True).values[:30]
        assert torch.equal(both.score[row], best)
        for entry in range(30):
            scores = dense["attn" if both.site[row, entry] == ATTENTION else "ffn"].scores
            assert scores[row, both.layer[row, entry], both.unit[row, entry]] == both.score[row, entry]
        assert torch.equal(dense["attn"].scores[row, alone.layer[row].long(), alone.unit[row].long()], alone.score[row])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"site": "head"}, "unknown site 'head'"),
        ({"site": "attn", "preset": "reference"}, "preset=reference scales what comes before a non-linearity"),
        ({"site": "both", "preset": "eleuther"}, "preset=eleuther scales what comes before a non-linearity"),
        ({"site": "attn", "positions": "broadcast_last"}, "slip of the authors' code"),
    ],
)
def test_readings_that_attention_neurons_do_not_have_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        IntegratedGradients(**settings)  # type: ignore[arg-type]
