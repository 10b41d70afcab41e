"""Scores over the residual stream of classifiers and of multiple choice, and beside the other methods of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pytest
import torch
from torch import Tensor

from tests.families import choice_batch, random_batch, tiny_backbone
from tests.oracles_neuron_level import ffn_score, norm_map, parts_of
from tests.running import CommandLine
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.part_scores import HeadScore, LayerScore
from twinlens.attribution.neuron.query_scores import QueryLayers
from twinlens.attribution.neuron.ranking import FIRST_ATTENTION
from twinlens.callbacks.attribute.score_files import neuron_table, read_addresses, read_neuron_lists
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.backbone import load_tokenizer
from twinlens.models.module import TextClassifier
from twinlens.models.residual_identities import build_residual


def classifier_engine(n_outputs: int):
    torch.manual_seed(4)
    head = torch.nn.Linear(32, n_outputs, bias=False).requires_grad_(False)
    return build_residual(build_anatomy(tiny_backbone("llama")), head)


@torch.no_grad()
def test_the_predicted_class_is_explained_through_the_head() -> None:
    engine, batch = classifier_engine(3), random_batch([5, 3, 4], "left")
    found = NeuronScore(top_k=7).attribute(engine, batch, 1 << 28)
    for row in range(3):
        parts = parts_of(engine.anatomy, batch["input_ids"][row][batch["attention_mask"][row].bool()])
        prob = engine.readout(parts.output[-1].float()).softmax(-1)
        assert int(found.target[row]) == int(prob.argmax())
        assert float(found.target_prob[row]) == pytest.approx(float(prob.max()), rel=1e-4)
        scores = {
            (layer, unit): ffn_score(
                engine.anatomy, engine.readout, parts, layer, unit, int(prob.argmax()), "logprob_increase"
            )
            for layer in range(3)
            for unit in range(48)
        }
        best = sorted(scores, key=lambda address: -scores[address])[:7]
        assert list(zip(found.layer[row].tolist(), found.unit[row].tolist(), strict=True)) == best
        assert found.score[row].tolist() == pytest.approx([scores[a] for a in best], rel=1e-3, abs=1e-7)
    gold = NeuronScore().attribute(engine, {**batch, "target": batch["labels"]}, 1 << 28)
    assert torch.equal(gold.target, batch["labels"])


@torch.no_grad()
def test_a_choice_is_explained_by_its_sequence_with_the_others_fixed() -> None:
    engine, batch = classifier_engine(1), choice_batch([[4, 3, 5], [3, 5, 4]], "left")
    found = LayerScore(top_k=6).attribute(engine, batch, 1 << 28)
    for row in range(2):
        sequences = [batch["input_ids"][row, c][batch["attention_mask"][row, c].bool()] for c in range(3)]
        parts = [parts_of(engine.anatomy, ids) for ids in sequences]
        scores = torch.stack([engine.readout(p.output[-1].float())[0] for p in parts]).double()
        chosen = int(scores.argmax())
        assert int(found.target[row]) == chosen

        def log_prob(x: Tensor, own=parts[chosen], scores=scores, chosen=chosen) -> float:
            normed = norm_map(engine.anatomy.last_norm, x, own.leaving[-1])
            changed = scores.clone()
            changed[chosen] = engine.readout.weight[0].double() @ normed
            return float(changed.log_softmax(-1)[chosen])

        own = parts[chosen]
        expected = {}
        for layer in range(3):
            x = own.entering[layer][-1]
            between = x + own.attention_output[layer][-1]
            expected[layer, 1] = log_prob(between) - log_prob(x)
            expected[layer, 0] = log_prob(between + own.mlp_output[layer][-1]) - log_prob(between)
        got = {
            (layer, site): score
            for layer, site, score in zip(
                found.layer[row].tolist(), found.site[row].tolist(), found.score[row].tolist(), strict=True
            )
        }
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-6)


@torch.no_grad()
def test_every_budget_gives_the_same_lists_and_too_small_ones_are_refused() -> None:
    engine, batch = classifier_engine(3), random_batch([5, 3, 4, 5], "right")
    for method in (NeuronScore(site="both"), HeadScore(by_position=True), QueryLayers("attn", 5)):
        least = method.bytes_per_example(engine, 5)
        plenty, little = (method.attribute(engine, batch, budget) for budget in (1 << 28, 2 * least))
        assert torch.equal(plenty.layer, little.layer)
        assert torch.equal(plenty.unit, little.unit)
        torch.testing.assert_close(plenty.score, little.score)
        with pytest.raises(UserError, match="memory_budget is"):
            method.attribute(engine, batch, 100)


def test_tables_say_what_entries_are_and_are_read_without_mixing_sites(tmp_path: Path) -> None:
    rows = {
        "index": torch.arange(2), "target": torch.zeros(2), "target_prob": torch.ones(2),
        "layer": torch.tensor([[1, 1, 0], [2, -1, -1]], dtype=torch.int32),
        "unit": torch.tensor([[5, 5, 7], [3, -1, -1]], dtype=torch.int32),
        "position": torch.tensor([[2, -1, -1], [0, -1, -1]], dtype=torch.int32),
        "site": torch.tensor([[1, 0, 0], [1, 0, 0]], dtype=torch.int8),
        "score": torch.tensor([[3.0, 2, 1], [4, 0, 0]]),
    }  # fmt: skip
    table = neuron_table(rows, "query", "head")
    datasets.Dataset(table).save_to_disk(str(tmp_path / "s"))
    assert table["site"].to_pylist() == [["attn", "ffn", "ffn"], ["attn"]]
    assert table["position"].to_pylist() == [[2, -1, -1], [0]]
    assert (table["role"].to_pylist()[1], table["unit_kind"].to_pylist()[1]) == (["query"], ["head"])
    lists = read_neuron_lists(tmp_path / "s", 3, n_layers=3, n_neurons=10, n_attention=8)
    assert lists.addresses(3).tolist() == [[1 * 18 + 15, 1 * 18 + 5, 7], [2 * 18 + 13, -1, -1]]
    layer, unit = read_addresses(tmp_path / "s", 2)
    assert layer.tolist() == [[1, 1], [2, -1]]
    assert unit.tolist() == [[FIRST_ATTENTION + 5, 5], [FIRST_ATTENTION + 3, -1]]


def test_both_lenses_take_the_scores(command: CommandLine) -> None:
    methods = "ig,logprob_increase,logprob_increase_attn,heads,gradsim,gradsim_neurons,na_instances"
    done = command(
        f"method=[{methods}]", "method.ig.n_steps=2", "method.na_instances.source=logprob_increase_attn",
        "method.gradsim_neurons.neurons=logprob_increase_attn", "evaluation=[faithfulness,overlap]",
        "evaluation.faithfulness.comprehensiveness=[5]", "evaluation.faithfulness.control=matched",
        "evaluation.faithfulness.control_seeds=[0]",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    tested = {(r["method"], r["reference_group"], r["variant"]) for r in rows if r["evaluation"] == "faithfulness"}
    assert ("logprob_increase", "", "") in tested
    assert ("logprob_increase_attn", "", "site=attn") in tested
    assert ("gradsim_neurons", "", "site=attn") in tested
    assert ("random_neurons", "logprob_increase_attn", "control=matched;site=attn") in tested
    assert not any(method == "heads" for method, _, _ in tested)
    common = [r for r in rows if r["metric"] == "common" and r["reference_group"] in ("ig", "logprob_increase")]
    assert common
    assert all(float(r["value"]) == 0 for r in common)  # FFN neurons beside attention neurons
    composed = datasets.load_from_disk(str(done.folder / "scores" / "gradsim_neurons" / "test"))
    assert {site for sites in composed["site"][:] for site in sites} == {"attn"}
    assert json.loads((done.folder / "metrics.json").read_text())


def test_scores_of_one_stream_do_not_serve_all_choices_at_once(repository: Path) -> None:
    tokenizer = load_tokenizer(str(repository / "models" / "tiny"))
    settings = {"model_type": "gpt_neox", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = TextClassifier(
        "m", ["A", "B"], tokenizer, architecture={**settings, "intermediate_size": 16}, n_choices=2, choices="all"
    )
    with pytest.raises(UserError, match="expected choices=predicted"):
        model.residual_engine()
