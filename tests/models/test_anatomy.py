"""The adapter verifies itself on every family and refuses by name what it cannot serve."""

from __future__ import annotations

import pytest
import torch

from tests.families import ALL_MODELS, tiny_backbone
from twinlens.attribution.errors import UserError
from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy import Anatomy, Writing
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.forwards import answer_positions, position_ids_from_mask


@pytest.mark.parametrize("name", ALL_MODELS)
def test_every_family_passes_its_identities(name: str) -> None:
    backbone = tiny_backbone(name)
    anatomy = build_anatomy(backbone)
    assert anatomy.n_layers == 3
    assert anatomy.value_rows(0).shape == (anatomy.n_neurons, anatomy.hidden_size)
    assert anatomy.gated == (backbone.config.model_type in ("llama", "mistral", "qwen2", "gemma"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_identities_allow_for_the_rounding_of_the_models_type(dtype: torch.dtype) -> None:
    assert build_anatomy(tiny_backbone("llama").to(dtype)).n_layers == 3


@pytest.mark.parametrize(
    ("name", "setting"),
    [("opt", {"do_layer_norm_before": False}), ("bloom", {"apply_residual_connection_post_layernorm": True})],
)
def test_a_stream_that_is_no_sum_is_refused_by_name(name: str, setting: dict[str, object]) -> None:
    """As opt-350m, which normalises after each addition, and as a setting of BLOOM that no released model has."""
    with pytest.raises(UserError, match=rf"'block = residual \+ .*' fails in layer 0 of the {name} model.*gradsim"):
        build_anatomy(tiny_backbone(name, **setting))


@pytest.mark.parametrize(
    ("part", "identity"),
    [
        ("final_norm", "final norm"),
        ("mlp_write", r"residual \+ attention \+ MLP"),
        ("attention_write", r"residual \+ attention \+ MLP"),
        ("value_rows", "activation · values"),
    ],
)
def test_a_model_that_breaks_an_identity_is_refused_with_layer_and_error(
    part: str, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone("llama")
    wrong = {
        "final_norm": lambda self, hidden: hidden,
        "mlp_write": lambda self, layer: Writing(torch.nn.Identity(), None, 1.0 + (layer == 1)),
        "attention_write": lambda self, layer: Writing(torch.nn.Identity(), None, 1.0 + (layer == 1)),
        "value_rows": lambda self, layer: projection_rows(self.down_projection(self.blocks[layer])) * (1 + layer),
    }
    monkeypatch.setattr(Anatomy, part, wrong[part])
    layer = 2 if part == "final_norm" else 1
    with pytest.raises(UserError, match=rf"'{identity}.*' fails in layer {layer} .* relative error .*method=gradsim"):
        build_anatomy(backbone)


def test_answer_position_comes_from_the_mask_on_either_side() -> None:
    right = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    assert answer_positions(right).tolist() == [2, 0, 3]
    left = right.flip(1)
    assert answer_positions(left).tolist() == [3, 3, 3]
    assert position_ids_from_mask(left).tolist() == [[0, 0, 1, 2], [0, 0, 0, 0], [0, 1, 2, 3]]
