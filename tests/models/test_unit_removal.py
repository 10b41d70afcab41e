"""Contributions of units and their gradients by every layer, against plain forwards and autograd on the parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.attribution.gradients.cases import FAMILIES, Case, case
from tests.combinations import half_long
from tests.decoders import tiny_decoder
from tests.encoders import save_encoder
from tests.families import random_batch
from tests.oracles_experts import without_unit
from tests.oracles_gradients import parameters_of
from tests.oracles_units import contribution, gradients
from tests.served_encoders import LABELS, TEXTS, Encoder, Plain, batches
from twinlens.attribution.bridge.units import Units, contributions
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests, Inverse
from twinlens.attribution.neuron.ranking import ATTENTION
from twinlens.attribution.targets import Targets
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.expert_layers import ExpertMatrix
from twinlens.models.forwards import answer_positions
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.linear_layers import linear_layers
from twinlens.models.unit_removal import UnitRemoval

BLOCKS = {"gpt2": "h", "opt": "decoder.layers", "gpt_neox": "layers", "llama": "layers", "qwen2": "layers"}
DOWNS = {"gpt2": "mlp.c_proj", "opt": "fc2", "gpt_neox": "mlp.dense_4h_to_h"}
OUTPUTS = {"gpt2": "attn.c_proj", "opt": "self_attn.out_proj", "gpt_neox": "attention.dense"}
NAMED = [["ffn", 0, 5], ["ffn", 2, 40], ["attn", 1, 9], ["head", 1, 3]]
HEAD_SIZE = 8


class Readable(nn.Module):
    """A case as its users hold models: with backbone and readout."""

    def __init__(self, given: Case) -> None:
        super().__init__()
        self.backbone = given.module["backbone"]
        self.lm = given.module
        self.given = given

    def forward(self, batch: Any) -> Tensor:
        return self.given.scores(batch)


def read_by(family: str, backbone: Any, kind: str, layer: int) -> nn.Module:
    """The linear map behind a unit, by the name that transformers' code gives it."""
    names = (DOWNS, "mlp.down_proj") if kind == "ffn" else (OUTPUTS, "self_attn.o_proj")
    return backbone.get_submodule(f"{BLOCKS[family]}.{layer}.{names[0].get(family, names[1])}")


def span_of(kind: str, unit: int) -> tuple[int, int]:
    return (unit * HEAD_SIZE, (unit + 1) * HEAD_SIZE) if kind == "head" else (unit, unit + 1)


def test_parts_are_found_under_mixed_precision() -> None:
    """Whose rounding would be taken for parts that are others."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert UnitRemoval(Readable(case("gpt2"))).anatomy.n_layers == 3


@pytest.mark.parametrize(("family", "padding"), half_long(FAMILIES, ["right", "left"]))
def test_contributions_and_their_gradients_equal_autograd(family: str, padding: str) -> None:
    given = case(family)
    texts, target = random_batch([6, 3], padding, seed=5), torch.tensor([1, 2])
    units = Units.named(NAMED, torch.arange(2))
    batch = {name: values[units.index] for name, values in texts.items()}
    taken = UnitRemoval(Readable(given))
    held = HeldTests(given.layers, [Inverse()] * len(given.layers), len(units), 10**9, own=False, workspace=2**20)
    with recording(given.layers) as tape:
        scores = taken.scores(batch, units.site == ATTENTION, units.layer, units.unit, units.head)
        phi = contributions(scores, Targets(target[units.index]))
        held.add(tape, -phi, None)

    parameters = [parameter for layer in given.layers for parameter in parameters_of(layer.module)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    for pair, index in enumerate(units.index.tolist()):
        kind, layer, unit = NAMED[pair % len(NAMED)]
        ids = texts["input_ids"][index, texts["attention_mask"][index].bool()][None]
        alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        module = read_by(family, given.module["backbone"], str(kind), int(layer))
        expected = contribution(
            lambda alone=alone, index=index: given.scores(alone).log_softmax(-1)[0, target[index]], module,
            span_of(str(kind), int(unit)),
        )  # fmt: skip
        torch.testing.assert_close(phi[pair].detach(), expected.detach(), rtol=1e-6, atol=1e-9)
        rows = iter(gradients(-expected, parameters))
        for number, layer_ in enumerate(given.layers):
            weight = next(rows)
            parts = [weight.T if isinstance(layer_.module, Conv1D) else weight]
            parts += [next(rows)[:, None]] if layer_.has_bias else []
            found = gradient_of(held, number, pair, layer_.d_out, layer_.d_in + layer_.has_bias)
            torch.testing.assert_close(found, torch.cat(parts, 1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["qwen2_moe", pytest.param("gpt_oss", marks=pytest.mark.long)])
def test_units_of_experts_are_taken_between_the_expert_s_matrices_so_that_their_gradients_know(name: str) -> None:
    """Of a routed expert, of one that the token is not sent to, and of the shared one where there is one."""
    lm: Any = tiny_decoder(name, num_hidden_layers=2)
    lm = lm.double()
    model = Expert(lm)
    layers = linear_layers(lm, lm.get_output_embeddings(), "all")
    anatomy = build_anatomy(lm.base_model)
    places = anatomy.experts
    assert places is not None
    texts = random_batch([5, 3], "left", seed=2)
    target = torch.tensor([7, 11])
    found = LastTokenEngine(anatomy, lm.get_output_embeddings(), "token").states(texts).activation[:, 0]
    routed = found[:, : places.routed * places.units]
    idle = routed[0].unflatten(0, (places.routed, -1)).abs().amax(1).argmin() * places.units
    named = [int(routed[0].abs().argmax()), int(routed[1].abs().argmax()), int(idle)]
    named += [places.routed * places.units + 3] if places.shared else []
    units = Units.named([["ffn", 0, unit] for unit in named], torch.arange(2))
    batch = {key: values[units.index] for key, values in texts.items()}
    held = HeldTests(layers, [Inverse()] * len(layers), len(units), 10**9, own=False, workspace=2**22)
    before = [("forward" in vars(m), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in lm.modules()]
    taken = UnitRemoval(model)
    with recording(layers) as tape:
        scores = taken.scores(batch, units.site == ATTENTION, units.layer, units.unit, units.head)
        phi = contributions(scores, Targets(target[units.index]))
        held.add(tape, -phi, None)
    assert [("forward" in vars(m), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in lm.modules()] == before

    parts = anatomy.structure.parts[0]
    assert parts is not None
    assert parts.experts is not None
    block = anatomy.blocks[0]
    experts = block.get_submodule(parts.experts.experts)
    shared = [block.get_submodule(each.projection) for each in parts.experts.shared]
    matrices = {"up": experts.gate_up_proj, "down": experts.down_proj}
    weights = [*matrices.values(), *(part.weight for part in shared)]
    for weight in weights:
        weight.requires_grad_(True)
    for pair, (index, unit) in enumerate(zip(units.index.tolist(), units.unit.tolist(), strict=True)):
        ids = texts["input_ids"][index, texts["attention_mask"][index].bool()][None]

        def log_prob(ids: Tensor = ids, index: int = index) -> Tensor:
            return lm(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)[target[index]]

        expert, own = divmod(unit, places.units)
        with torch.enable_grad(), pytest.MonkeyPatch.context() as patched:
            patched.setattr(experts, "forward", without_unit(experts, None))
            if expert < places.routed:
                whole = log_prob()
                patched.setattr(experts, "forward", without_unit(experts, (ids.shape[1] - 1, expert, own)))
                expected = whole - log_prob()
            else:
                expected = contribution(log_prob, shared[0], span_of("ffn", unit - places.routed * places.units))
            slopes = torch.autograd.grad(-expected, weights, allow_unused=True)
        # routers compute in single precision
        torch.testing.assert_close(phi[pair].detach(), expected.detach(), rtol=1e-3, atol=1e-6)
        assert pair != 2 or float(expected.detach()) == 0  # of an expert that the token is not sent to
        for number, layer in enumerate(layers):
            if isinstance(layer.module, ExpertMatrix) and layer.block == 0:
                side, own_expert = layer.module._address
                slope = slopes[list(matrices).index(side)]
            elif layer.module in shared:
                side, own_expert, slope = "", 0, slopes[2 + shared.index(layer.module)]
            else:
                continue
            assert slope is not None
            wanted = slope[own_expert] if side else slope
            wanted = wanted.T if side and experts.is_transposed else wanted
            seen = gradient_of(held, number, pair, layer.d_out, layer.d_in)[:, : wanted.shape[1]]
            torch.testing.assert_close(seen, wanted, rtol=1e-3, atol=1e-5, msg=lambda m, n=layer.name: f"{n}: {m}")


class Expert(nn.Module):
    """A language model as its users hold it."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        self.backbone = lm.base_model

    def forward(self, batch: Any) -> Tensor:
        positions = answer_positions(batch["attention_mask"])
        logits = self.lm(**{key: batch[key] for key in ("input_ids", "attention_mask")}, use_cache=False).logits
        return logits[torch.arange(len(positions)), positions]


def gradient_of(held: HeldTests, number: int, pair: int, d_out: int, d_in: int) -> Tensor:
    """A pair's gradient in one layer, [d_out, d_in + bias]; zeros where it does not reach the layer."""
    layer = held._held[number]
    if layer.dense is not None:
        return layer.dense[pair].view(d_out, d_in)
    inputs, deltas = (torch.cat(parts) for parts in zip(*layer.factors, strict=True))
    return deltas[pair].mT @ inputs[pair]


@pytest.mark.parametrize("kind", ["bert", pytest.param("modernbert", marks=pytest.mark.long)])
def test_units_of_encoders_are_taken_at_the_token_that_the_head_reads(kind: str, tmp_path: Path) -> None:
    save_encoder(kind, tmp_path)
    encoder = Encoder(kind, tmp_path)
    named: list[tuple[str, int, int]] = [("ffn", 1, 3), ("head", 0, 1)]
    (texts,) = batches("left", len(TEXTS))
    units = Units.named(named, torch.arange(len(TEXTS)))
    batch = {name: values[units.index] for name, values in texts.items()}
    with torch.no_grad():
        scores = UnitRemoval(encoder.model()).scores(
            batch, units.site == ATTENTION, units.layer, units.unit, units.head
        )
        found = contributions(scores, Targets(LABELS[units.index]))
        expected = []
        for text, label in zip(TEXTS, LABELS.tolist(), strict=True):
            plain = Plain(encoder, text)
            for word, layer, unit in named:
                start, stop = span_of(word, unit)
                gone = {("ffn" if word == "ffn" else "attn", layer): lambda row, a=start, b=stop: zeroed(row, a, b)}
                expected.append((plain.probability({}).log() - plain.probability(gone).log())[label])
    torch.testing.assert_close(found, torch.stack(expected).double(), rtol=1e-4, atol=1e-5)


def zeroed(row: Tensor, start: int, stop: int) -> Tensor:
    row = row.clone()
    row[start:stop] = 0
    return row
