"""Parts that are found: those that adapters name, through norms and scales; other models are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from tests.decoders import TYPES, tiny_config, tiny_decoder
from tests.families import ALL_MODELS, linear_head, random_batch, tiny_backbone
from tests.models_table import PAGE, quiet, rows_of, rows_on
from twinlens.attribution.errors import UserError
from twinlens.models.anatomy_check import anatomy_of, build_anatomy
from twinlens.models.block_probe import BlockProbe, Call
from twinlens.models.discovery import parts_of
from twinlens.models.footprint import footprint_of
from twinlens.models.found_anatomy import FoundAnatomy
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.linear_layers import linear_layers, used_around
from twinlens.models.padding import aligned, unaligned
from twinlens.models.rows import full_rows

SEED = 20261129
PARTS = ("down_projection", "up_projection", "attention_output", "attention", "pre_mlp_norm", "pre_attention_norm")


@pytest.mark.parametrize("name", ALL_MODELS)
def test_what_is_found_is_what_adapters_name(name: str) -> None:
    backbone = tiny_backbone(name)
    adapter, found = build_anatomy(backbone), FoundAnatomy(backbone)
    assert not isinstance(adapter, FoundAnatomy)
    assert (found.gated, found.parallel, found.n_heads, found.head_dim, found.n_key_heads, found.n_neurons) == (
        *(adapter.gated, adapter.parallel, adapter.n_heads, adapter.head_dim, adapter.n_key_heads, adapter.n_neurons),
    )
    assert (found.last_norm, found.last_projection) == (adapter.last_norm, adapter.last_projection)
    values = torch.arange(3 * 128, dtype=torch.float32)
    for block, other in zip(found.blocks, adapter.blocks, strict=True):
        assert block is other
        for part in PARTS:
            assert getattr(found, part)(block) is getattr(adapter, part)(block), part
        width = adapter.value_projection(block)(torch.zeros(1, 32)).shape[-1]
        given = values[:width]
        assert torch.equal(found.head_values(block, given), adapter.head_values(block, given))
    assert all(found.mlp_write(layer).plain and found.attention_write(layer).plain for layer in range(3))


def test_scales_and_norms_behind_a_part_are_found() -> None:
    scaled = anatomy_of(tiny_decoder("granite", residual_multiplier=0.22).base_model)
    assert [scaled.mlp_write(layer).scale for layer in range(3)] == pytest.approx([0.22] * 3, rel=1e-6)
    behind = anatomy_of(tiny_decoder("gemma2").base_model)
    assert type(behind.attention_write(1).norm).__name__ == "Gemma2RMSNorm"
    assert anatomy_of(tiny_decoder("phi3").base_model).up_projection is not None


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
        ("mixtral", r"activation · values = MLP output' fails in layer 0 .*mixture of experts.*method=gradsim"),
        ("mamba", r"block = residual \+ attention \+ MLP' fails in layer 0 .*method=gradsim"),
        ("deepseek_v4", r"no chain of blocks.*method=gradsim"),
    ],
)
def test_other_models_are_refused_with_what_still_works(name: str, said: str) -> None:
    lm = tiny_decoder(name)
    with pytest.raises(UserError, match=said):
        build_anatomy(lm.base_model)
    assert linear_layers(lm, lm.get_output_embeddings(), "all")


def test_a_model_without_values_is_described_by_its_configuration() -> None:
    with torch.device("meta"):
        backbone = AutoModel.from_config(tiny_config("qwen3"))
    with pytest.raises(UserError, match="shapes alone"):
        anatomy_of(backbone)
    sizes = footprint_of(backbone)
    assert (sizes.n_neurons, sizes.n_layers, sizes.gated) == (48, 3, True)
    with torch.device("meta"):
        assert not footprint_of(AutoModel.from_config(tiny_config("phi"))).gated


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
    assert sum(cells[0] == "replayed" and cells[1] == "yes" for cells in known.values()) >= 55
    assert sum(cells[2] in ("yes", "gradients alone") for cells in known.values()) >= 55
