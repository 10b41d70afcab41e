"""The residual engine verifies itself, equals plain forwards on either padding, and refuses what it cannot serve."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.families import ALL_MODELS, linear_head, random_batch, tiny_backbone
from tests.oracles_neuron_level import parts_of
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.bounded_search import search_bytes
from twinlens.attribution.neuron.increase import dense_bytes
from twinlens.attribution.neuron.query import query_bytes
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.models.anatomy import Anatomy
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.norms import norm_of
from twinlens.models.residual import ResidualEngine
from twinlens.models.residual_identities import build_residual


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_states_equal_plain_forwards(name: str, padding: str) -> None:
    backbone = tiny_backbone(name)
    usual = backbone.config._attn_implementation
    engine = build_residual(build_anatomy(backbone), linear_head(backbone))
    assert isinstance(engine, ResidualModel)
    assert engine.parallel == (name == "gpt_neox")
    batch = random_batch([5, 2, 6], padding)
    states = engine.states(batch)
    assert backbone.config._attn_implementation == usual
    repeats = engine.n_heads // engine.n_key_heads
    for row, mask in enumerate(batch["attention_mask"].bool()):
        parts = parts_of(engine.anatomy, batch["input_ids"][row][mask])
        for layer in range(engine.n_layers):
            expected = (
                (states.residual, parts.entering[layer][-1]),
                (states.attention_output, parts.attention_output[layer][-1]),
                (states.mlp_output, parts.mlp_output[layer][-1]),
                (states.activation, parts.activation[layer][-1]),
                (states.attention[..., mask], parts.attention[layer]),
                (states.value.repeat_interleave(repeats, 2)[..., mask, :], parts.value[layer]),
            )
            for found, plain in expected:
                assert float((found[row, layer] - plain).abs().max()) < 1e-5 * max(1, float(plain.abs().max()))
        assert bool((states.attention[row][..., ~mask] == 0).all())
    assert torch.equal(engine.states(batch, attention=False).residual, engine.states(batch, attention=False).residual)
    assert engine.states(batch, attention=False).attention is None


def test_streamed_layers_are_every_token() -> None:
    backbone = tiny_backbone("opt")
    engine = build_residual(build_anatomy(backbone), linear_head(backbone))
    seen = []
    engine.stream(random_batch([4, 6]), seen.append)
    assert [layer.layer for layer in seen] == [0, 1, 2]
    assert seen[1].activation.shape == (2, 6, 48)
    after = seen[1].residual + seen[1].attention_output + seen[1].mlp_output
    assert torch.allclose(after, seen[2].residual, atol=1e-5)


def test_models_that_write_out_no_attention_serve_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, batch = tiny_backbone("llama"), random_batch([3, 5])
    expected = build_residual(build_anatomy(backbone), linear_head(backbone)).states(batch, attention=False)
    monkeypatch.setattr(backbone, "set_attn_implementation", lambda kind: None)
    engine = build_residual(build_anatomy(backbone), linear_head(backbone))
    assert torch.equal(engine.states(batch, attention=False).activation, expected.activation)
    with pytest.raises(UserError, match="writes out no attention weights"):
        engine.states(batch)


@pytest.mark.parametrize(
    ("part", "identity"),
    [
        ("head_values", "attention · values · output rows"),
        ("pre_attention_norm", "residual · attention keys = values"),
        ("pre_mlp_norm", "residual · MLP keys = coefficients"),
        ("last_norm", "frozen final norm = backbone output"),
    ],
)
def test_a_wrong_part_is_refused_with_identity_and_layer(
    part: str, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone("llama")
    anatomy = build_anatomy(backbone)
    if part == "head_values":
        monkeypatch.setattr(type(anatomy), part, lambda self, block, x: x.unflatten(-1, (-1, self.head_dim)).flip(-1))
    elif part == "last_norm":
        monkeypatch.setattr(type(anatomy), part, property(lambda self: self.blocks[0].input_layernorm))
    else:
        monkeypatch.setattr(type(anatomy), part, lambda self, block: self.backbone.norm)
    with pytest.raises(UserError, match=identity):
        build_residual(anatomy, linear_head(backbone))


def test_bf16_models_pass_and_their_scores_are_float32() -> None:
    backbone = tiny_backbone("qwen2").to(torch.bfloat16)
    engine = build_residual(build_anatomy(backbone), linear_head(backbone).to(torch.bfloat16))
    states = engine.states(random_batch([4, 3]))
    assert states.scores.dtype == states.statistic.dtype == torch.float32


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(UserError, match="neither a LayerNorm nor an RMSNorm"):
        norm_of(torch.nn.GroupNorm(2, 4))


LARGE = {
    "gpt2-large": ("gpt2", {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
    "llama-7b": ("llama", {"vocab_size": 32000}),
}


@pytest.mark.parametrize("name", LARGE)
def test_memory_is_known_from_shapes_alone(name: str) -> None:
    model_type, settings = LARGE[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings))
    engine = ResidualEngine(Anatomy(model.base_model), model.lm_head)
    tokens, hidden, outputs = 32, engine.values(0).shape[1], len(engine.output_weight)
    attention = (engine.n_layers, engine.n_heads * engine.head_dim, tokens, outputs, hidden)
    needed = {
        "states": engine.bytes_per_example(tokens),
        "ffn": search_bytes(engine.n_layers, engine.n_neurons, 1, outputs, hidden),
        "attention": search_bytes(*attention),
        "dense": dense_bytes(8, engine.n_neurons, 1, outputs, hidden),
        "query": query_bytes(engine, tokens, 200, hidden),
        "gradient": engine.bytes_per_gradient(tokens),
    }
    assert all(0 < value < 1 << 30 for value in needed.values()), needed
    assert needed["attention"] > needed["ffn"]
