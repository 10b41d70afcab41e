"""Faithfulness of lists with attention neurons equals plain forwards with hooks; sites are never mixed up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.families import ALL_MODELS, choice_batch, choice_engine, random_batch, tiny_engine
from twinlens.attribution.evaluation.base_line import base_line_name
from twinlens.attribution.evaluation.controls import matched_list
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.overlap import compare_lists
from twinlens.attribution.evaluation.questions import PROBABILITY, Question
from twinlens.attribution.evaluation.site_ablation import CELLS, SiteAblation
from twinlens.attribution.neuron.ranking import FIRST_ATTENTION
from twinlens.models.forwards import backbone_arguments
from twinlens.models.last_token import LastTokenEngine

# (layer, site, unit), best first; the first two differ by their site alone
LIST = [(1, "attn", 5), (1, "ffn", 5), (0, "ffn", 40), (2, "attn", 31), (1, "attn", 5)]


def coded(entries: list[tuple[int, str, int]], batch: int) -> tuple[Tensor, Tensor]:
    layer = torch.tensor([[e[0] for e in entries]] * batch, dtype=torch.int32)
    unit = torch.tensor([[e[2] + FIRST_ATTENTION * (e[1] == "attn") for e in entries]] * batch, dtype=torch.int32)
    return layer, unit


def plain_scores(
    engine: LastTokenEngine, ids: Tensor, zeroed: dict[tuple[int, str], list[int]], everywhere: bool
) -> Tensor:
    """One unpadded sentence, chosen units 0 at the last token or at all."""
    handles = []
    for (layer, site), units in zeroed.items():
        block = engine.anatomy.blocks[layer]
        module = engine.anatomy.down_projection(block) if site == "ffn" else engine.anatomy.attention_output(block)

        def hook(m, args, units=units):
            rows = args[0].reshape(len(ids), -1).clone()
            for place in range(len(ids)) if everywhere else [len(ids) - 1]:
                rows[place, units] = 0
            return (rows.reshape(args[0].shape),)

        handles.append(module.register_forward_pre_hook(hook))
    batch = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    output = engine.anatomy.backbone(**backbone_arguments(engine.anatomy.backbone, batch), use_cache=False)
    for handle in handles:
        handle.remove()
    return engine.head(output.last_hidden_state[0, -1])


def zeroed_units(
    engine: LastTokenEngine, test: str, r: int, sites: tuple[str, ...]
) -> dict[tuple[int, str], list[int]]:
    listed = set(LIST[:r])
    zeroed = {}
    for layer in range(engine.n_layers):
        for site, count in (("ffn", engine.n_neurons), ("attn", engine.n_attention)):
            if test == "comprehensiveness":
                units = [u for u in range(count) if (layer, site, u) in listed]
            else:
                units = [u for u in range(count) if site in sites and (layer, site, u) not in listed]
            zeroed[layer, site] = units
    return zeroed


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("name", ALL_MODELS)
@torch.no_grad()
def test_answers_equal_plain_forwards(name: str, positions: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([5, 3, 4], "left")
    evaluation = Faithfulness([2], [4], positions=positions)
    for site, sites in (("attn", ("attn",)), ("both", ("ffn", "attn"))):
        lists = {"list": coded(LIST, 3)}
        answers = evaluation.answers(engine, batch, lists, 1 << 30, sites={"list": site})
        chunked = evaluation.answers(engine, batch, lists, 1, sites={"list": site})
        for row in range(3):
            ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
            predicted = int(plain_scores(engine, ids, {}, False).argmax())
            for test, r in (("sufficiency", 2), ("comprehensiveness", 4)):
                zeroed = zeroed_units(engine, test, r, sites)
                expected = plain_scores(engine, ids, zeroed, positions == "all").softmax(-1)
                key = Question("list", test, r).probability_key
                assert float(answers[key][row]) == pytest.approx(float(expected[predicted]), rel=1e-4, abs=1e-6)
                assert torch.allclose(answers[key], chunked[key], atol=1e-6)


@pytest.mark.parametrize("name", ALL_MODELS)
@torch.no_grad()
def test_four_cells_equal_plain_forwards_and_the_base_lines(name: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([5, 3, 4], "left")
    lists = {site: coded(LIST, 3) for site in ("ffn", "attn", "both")}
    answers = SiteAblation().answers(engine, batch, 1 << 30)
    chunked = SiteAblation().answers(engine, batch, 1)
    bases = Faithfulness([1], [1]).answers(engine, batch, lists, 1 << 30, sites={"attn": "attn", "both": "both"})
    assert torch.allclose(answers["target_prob"], chunked["target_prob"], atol=1e-6)
    for column, (ffn, attention) in enumerate(CELLS):
        off = [site for site, on in (("ffn", ffn), ("attn", attention)) if not on]
        count = {"ffn": engine.n_neurons, "attn": engine.n_attention}
        zeroed = {(layer, site): list(range(count[site])) for layer in range(engine.n_layers) for site in off}
        for row in range(3):
            ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
            predicted = int(plain_scores(engine, ids, {}, False).argmax())
            expected = plain_scores(engine, ids, zeroed, False).softmax(-1)
            assert float(answers["target_prob"][row, column]) == pytest.approx(float(expected[predicted]), abs=1e-5)
            assert bool(answers["preserved"][row, column]) == (int(expected.argmax()) == predicted)
        if off:
            base = Question(base_line_name("both" if len(off) == 2 else off[0]), "sufficiency", 1)
            assert torch.allclose(bases[base.probability_key], answers["target_prob"][:, column], atol=1e-6)
            assert torch.equal(bases[base.key], answers["preserved"][:, column])
    nothing = Question(base_line_name("attn"), "comprehensiveness", 1)
    assert torch.equal(bases[nothing.probability_key], bases[PROBABILITY])
    assert bool(bases[nothing.key].all())


def test_lists_of_ffn_neurons_leave_attention_alone_beside_others() -> None:
    engine, batch = tiny_engine("llama"), random_batch([5, 3], "right")
    ffn = coded([(1, "ffn", 5), (0, "ffn", 7)], 2)
    evaluation = Faithfulness([1], [2])
    alone = evaluation.answers(engine, batch, {"ffn": ffn}, 1 << 30)
    lists = {"ffn": ffn, "list": coded(LIST, 2)}
    beside = evaluation.answers(engine, batch, lists, 1 << 30, sites={"list": "both"})
    for key, found in alone.items():
        assert torch.allclose(found.float(), beside[key].float(), atol=1e-6)


def test_choices_take_attention_edits() -> None:
    engine = choice_engine("gpt2", "all")
    batch = choice_batch([[4, 3, 5], [3, 3, 4]])
    evaluation = Faithfulness([2], [4])
    answers = evaluation.answers(engine, batch, {"list": coded(LIST, 2)}, 1 << 30, sites={"list": "attn"})
    without = evaluation.answers(engine, batch, {"list": coded([(1, "ffn", 5)] * 5, 2)}, 1 << 30)
    key = Question("list", "sufficiency", 2).probability_key
    assert not torch.allclose(answers[key], without[key], atol=1e-4)


def test_matched_controls_keep_layers_and_sites() -> None:
    layer, unit = coded(LIST, 2)
    found_layer, found = matched_list(layer, unit, 3, 48, torch.tensor([4, 9]), 0, n_attention=32)
    assert torch.equal(found_layer, layer)
    assert torch.equal(found >= FIRST_ATTENTION, unit >= FIRST_ATTENTION)
    assert torch.equal(found[:, 0], found[:, 4])  # the same neuron stays the same
    assert int((found % FIRST_ATTENTION).max()) < 48
    ffn = matched_list(*coded([e for e in LIST if e[1] == "ffn"], 2), 3, 48, torch.tensor([4, 9]), 0)
    assert torch.equal(ffn[1], found[:, 1:3])  # as without attention neurons beside them


def test_the_same_unit_of_two_sites_is_nothing_in_common() -> None:
    _, unit = coded([(1, "attn", 5)], 1)
    _, other = coded([(1, "ffn", 5)], 1)
    compared = compare_lists(unit.long(), other.long())
    assert (float(compared.common), float(compared.only_first)) == (0, 1)
