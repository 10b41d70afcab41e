"""Parts that are found: those that adapters name, through norms and scales; other models are refused by name."""

from __future__ import annotations

import copy
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from tests.adapters import TOKENIZER, needs_peft, write_adapter, write_base
from tests.decoders import TYPES, tiny_config, tiny_decoder
from tests.families import ALL_MODELS, linear_head, random_batch, tiny_backbone, tiny_engine
from tests.models_table import PAGE, is_served, quiet, rows_of, rows_on
from twinlens.attribution.errors import UserError
from twinlens.models import replay
from twinlens.models.anatomy import Anatomy
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.backbone import architecture_of, load_tokenizer
from twinlens.models.block_probe import BlockProbe, Call
from twinlens.models.discovery import parts_of
from twinlens.models.footprint import footprint_of
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.linear_layers import linear_layers, used_around
from twinlens.models.padding import aligned, unaligned
from twinlens.models.rows import full_rows
from twinlens.models.structure import Structure, UnknownParts, structure_of

SEED = 20261129
PARTS = ("down_projection", "up_projection", "attention_output", "attention", "pre_mlp_norm", "pre_attention_norm")


NAMES = {
    "llama": "mlp.down_proj mlp.up_proj self_attn.o_proj self_attn post_attention_layernorm input_layernorm",
    "gpt2": "mlp.c_proj mlp.c_fc attn.c_proj attn ln_2 ln_1",
    "opt": "fc2 fc1 self_attn.out_proj self_attn final_layer_norm self_attn_layer_norm",
    "gpt_neox": "mlp.dense_4h_to_h mlp.dense_h_to_4h attention.dense attention post_attention_layernorm "
    "input_layernorm",
    "bloom": "mlp.dense_4h_to_h mlp.dense_h_to_4h self_attention.dense self_attention post_attention_layernorm "
    "input_layernorm",
}
"""As somebody who reads transformers' code would write them down, in the order of `PARTS`."""
FINAL = {"gpt2": "ln_f", "opt": "decoder.final_layer_norm", "gpt_neox": "final_layer_norm", "bloom": "ln_f"}
GATED = ("llama", "mistral", "qwen2", "gemma")


@pytest.mark.parametrize("name", ALL_MODELS)
def test_parts_are_those_that_a_reader_names(name: str) -> None:
    backbone: Any = tiny_backbone(name)
    kind, found = backbone.config.model_type, Anatomy(backbone)
    assert (found.gated, found.parallel) == (kind in GATED, name == "gpt_neox")
    heads = (found.n_heads, found.n_key_heads, found.head_dim, found.n_neurons)
    key_heads = backbone.config.num_key_value_heads if kind in GATED else 4
    assert heads == (4, key_heads, 16 if name == "gemma" else 8, 128 if name in ("gpt2", "bloom") else 48)
    assert found.last_norm is backbone.get_submodule(FINAL.get(kind, "norm"))
    assert found.last_projection is (backbone.decoder.project_out if kind == "opt" else None)
    for block in found.blocks:
        for part, path in zip(PARTS, NAMES.get(kind, NAMES["llama"]).split(), strict=True):
            assert getattr(found, part)(block) is block.get_submodule(path), part
        width = found.value_projection(block)(torch.zeros(1, 32)).shape[-1]
        given = torch.arange(width, dtype=torch.float32)
        interleaved = given.reshape(-1, 3, 8)[:, 2] if width == 96 else given
        expected = given[64:].reshape(4, 8) if kind == "gpt2" else interleaved
        assert torch.equal(found.head_values(block, given), expected.reshape(key_heads, -1))
    assert all(found.mlp_write(layer).plain and found.attention_write(layer).plain for layer in range(3))


def without_values(backbone: Any) -> Any:
    return copy.deepcopy(backbone).to("meta")


@pytest.mark.parametrize("name", [*ALL_MODELS, "qwen3", "gemma2", "phi3", "olmo2", "mixtral", "mamba"])
def test_a_twin_shows_the_parts_of_a_model_without_values(name: str) -> None:
    backbone = tiny_backbone(name) if name in ALL_MODELS else tiny_decoder(name).base_model
    before = torch.get_rng_state()
    assert names_in(structure_of(without_values(backbone))) == names_in(structure_of(backbone))
    assert torch.equal(torch.get_rng_state(), before)


@needs_peft
def test_a_twin_has_no_adapters_and_shows_what_lies_below_them(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "base", "gpt2"))
    tokenizer = load_tokenizer(TOKENIZER)
    given: Any = (str(tmp_path / "adapter"), None, "linear", ["a", "b", "c"], len(tokenizer), "eager", False, "keep")
    found = Anatomy(architecture_of(*given).base_model)
    assert type(found.down_projection(found.blocks[0])).__module__.startswith("peft.")
    assert names_in(found.structure) == names_in(structure_of(tiny_backbone("gpt2")))


@pytest.mark.long
def test_a_twin_shows_the_parts_of_every_type() -> None:
    quiet()
    for name in rows_on(PAGE):
        backbone = tiny_decoder(name).base_model
        assert footprint_of(backbone).forward(9) > 0
        with suppress(UnknownParts):  # nothing is said of them before they have values
            assert names_in(structure_of(without_values(backbone))) == names_in(structure_of(backbone)), name


def names_in(structure: Structure | None) -> str:
    """All that a twin and its model have in common: not the numbers of outputs, nor factors, which go with widths."""
    return re.sub(r"tensor\([^()]*\)|scale=[^,]*", "…", str(structure))


def test_a_twin_is_small_whatever_the_model_is() -> None:
    with torch.device("meta"):
        large: Any = AutoModel.from_config(AutoConfig.for_model("llama", num_hidden_layers=4))
        larger = AutoModel.from_config(AutoConfig.for_model("gpt_neox", num_hidden_layers=4))
    for backbone, heads in ((large, 32), (larger, 64)):
        assert sum(weight.numel() for weight in backbone.parameters()) > 5e8
        found = Anatomy(backbone)
        config = backbone.config
        assert (found.n_layers, found.n_heads) == (config.num_hidden_layers, heads)
        assert (found.n_neurons, found.hidden_size) == (config.intermediate_size, config.hidden_size)
    with torch.device("meta"):  # its mask alone would have 2^34 entries
        long: Any = AutoModel.from_config(AutoConfig.for_model("gpt2", n_layer=2, n_positions=2**17))
    assert Anatomy(long).last_norm is long.ln_f


def test_scales_and_norms_behind_a_part_are_found() -> None:
    scaled = Anatomy(tiny_decoder("granite", residual_multiplier=0.22).base_model)
    assert [scaled.mlp_write(layer).scale for layer in range(3)] == pytest.approx([0.22] * 3, rel=1e-6)
    behind = Anatomy(tiny_decoder("gemma2").base_model)
    assert type(behind.attention_write(1).norm).__name__ == "Gemma2RMSNorm"
    assert Anatomy(tiny_decoder("phi3").base_model).up_projection is not None


def test_rows_of_the_replay_are_full_forwards_with_windows_caps_and_norms() -> None:
    lm = tiny_decoder("gemma2")
    engine = LastTokenEngine(build_anatomy(lm.base_model), nn.Linear(32, 3).requires_grad_(False))
    assert engine.rows.axes is not None
    for padding in ("left", "right"):
        states = engine.states(random_batch([12, 5, 9], padding))
        noise = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(1))
        rows = [states.residual[:, layer, None] + noise for layer in range(4)]
        attended = [noise, None, noise]
        with torch.no_grad():
            found = engine.rows.run(states.context, rows, attended)
            expected = full_rows(engine.anatomy, states.tokens, rows, attended)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_that_are_no_full_forwards_are_not_served_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(layer: int, rows: torch.Tensor) -> torch.Tensor:
        return rows * torch.tensor([[1.0], [0.5], [0.0]])

    def blind(own: Any, hidden: torch.Tensor, rows: Any) -> torch.Tensor:
        return seeing(own, hidden, rows).fill_(0)  # every row sees padding and the other rows

    seeing = replay._mask
    monkeypatch.setattr(replay, "_mask", blind)
    batch = random_batch([6, 3])
    for name in ("llama", "bloom"):
        with monkeypatch.context() as usual, torch.no_grad():
            usual.setattr(replay, "_mask", seeing)
            engine = tiny_engine(name)
            edited = engine.score_edits(engine.states(batch), half, 3, half)
        engine = tiny_engine(name)
        assert engine.rows.axes is None, name
        states = engine.states(batch)
        rows = [states.residual[:, layer, None] for layer in range(4)]
        with torch.no_grad():
            found = engine.score_rows(states, rows)
            torch.testing.assert_close(engine.score_edits(states, half, 3, half), edited, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found, states.scores[:, None].expand(-1, 4, -1), rtol=1e-4, atol=1e-5)


class Swapped(nn.Module):
    """A block whose position-wise part comes before the part that looks at other tokens."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.mix, self.local, self.third = (nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        x = hidden_states
        if self.order == "first":
            x = x + self.local(x.tanh())
            return x + self.mix(x.cumsum(1))
        if self.order == "product":
            return x * (1 + self.mix(x.cumsum(1))) + self.local(x)
        mixed = x + self.mix(x.cumsum(1))
        return mixed + self.local(mixed.tanh()) + (self.third(x) if self.order == "three" else 0)


@pytest.mark.parametrize(("order", "served"), [("last", True), ("first", False), ("product", False), ("three", False)])
def test_only_a_sum_with_the_local_part_last_has_parts(order: str, served: bool) -> None:
    torch.manual_seed(0)
    found = parts_of(BlockProbe(Swapped(order), Call((torch.randn(2, 5, 8),), {})))
    assert (found is not None and found.mlp is not None and found.mlp.projection == "local") == served


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jetmoe", r"experts in layer 0 .*cannot be read.*fused kernel.*use_kernels=False.*method=gradsim"),
        ("mamba", r"block = residual \+ attention \+ MLP' fails in layer 0 .*method=gradsim"),
        ("deepseek_v4", r"no chain of blocks.*method=gradsim"),
    ],
)
def test_other_models_are_refused_with_what_still_works(name: str, said: str) -> None:
    lm = tiny_decoder(name)
    with pytest.raises(UserError, match=said):
        build_anatomy(lm.base_model)
    assert linear_layers(lm, lm.get_output_embeddings(), "all")


def test_a_model_that_nothing_is_known_of_is_described_by_its_configuration() -> None:
    config = tiny_config("qwen3")
    with torch.device("meta"):
        backbone: Any = AutoModel.from_config(config)
    sizes = footprint_of(backbone)
    assert (sizes.n_neurons, sizes.n_layers, sizes.gated) == (48, 3, True)
    backbone.config.rope_parameters = {"rope_type": "unknown"}  # so that no twin can be built
    with pytest.raises(UnknownParts, match="shapes alone"):
        Anatomy(backbone)
    assert footprint_of(backbone) == sizes


@pytest.mark.parametrize("name", ["mamba", "rwkv", "falcon_h1", "deepseek_v4", "hrm_text", "jetmoe"])
def test_models_without_neurons_have_a_footprint_for_instance_methods(name: str) -> None:
    backbone = tiny_decoder(name).base_model
    sizes = footprint_of(backbone)
    assert sizes == footprint_of(without_values(backbone))
    assert sizes.hidden_size == 32
    assert sizes.sequence(9) > sizes.forward(9) > 0


def test_padding_on_the_left_is_moved_only_where_it_changes_the_tokens() -> None:
    batch = random_batch([4, 6], "left")
    llama = tiny_backbone("llama")
    assert aligned(llama, batch) is batch
    recurrent = tiny_decoder("recurrent_gemma").base_model
    moved = aligned(recurrent, batch)
    assert moved["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert moved["input_ids"][0, :4].tolist() == batch["input_ids"][0, 2:].tolist()
    states = moved["input_ids"][..., None].float()
    assert torch.equal(unaligned(recurrent, batch, states)[0, 2:, 0].long(), batch["input_ids"][0, 2:])


def test_weights_that_are_read_without_a_call_are_no_linear_layers() -> None:
    lm = tiny_decoder("mamba")
    around = used_around(lm)
    assert {name.split(".")[-1] for name, part in lm.named_modules() if part in around} == {"dt_proj"}
    assert not any("dt_proj" in layer.name for layer in linear_layers(lm, lm.get_output_embeddings(), "all"))
    assert used_around(tiny_decoder("mixtral")) == frozenset()  # experts that no token chose are no such layers


@torch.no_grad()
def test_a_type_without_classifier_gets_one_that_is_saved_and_loaded(tmp_path: Path) -> None:
    from twinlens.models.own_heads import serve_type

    config: Any = tiny_config("granite", num_labels=2)
    serve_type(config)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]])
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(ids).logits, model(ids).logits)
    hidden = AutoModel.from_pretrained(tmp_path)(ids).last_hidden_state
    torch.testing.assert_close(model.score(hidden)[torch.arange(2), torch.tensor([2, 3])], model(ids).logits)
    assert linear_head(model.base_model).in_features == 32


def test_ten_types_drawn_by_seed_are_as_the_table_says() -> None:
    quiet()
    known = rows_on(PAGE)
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(SEED))
    drawn = [sorted(known)[number] for number in order[:10].tolist()]
    assert rows_of(drawn) == {name: known[name] for name in drawn}, "python -m tests.models_table writes it anew"
    assert not [name for name, cells in known.items() if any("WRONG" in cell for cell in cells)]


@pytest.mark.long
def test_every_type_is_as_the_table_says() -> None:
    quiet()
    known = rows_on(PAGE)
    assert rows_of(TYPES) == known
    assert sum(cells[1] == "yes" for cells in known.values()) >= 58
    assert sum(cells[1].startswith("experts") for cells in known.values()) >= 20
    assert sum(cells[0] == "replayed" and is_served(cells[1]) for cells in known.values()) >= 75
    assert sum(cells[2] in ("yes", "gradients alone") for cells in known.values()) >= 55
