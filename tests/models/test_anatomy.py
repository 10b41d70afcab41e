"""The adapter verifies itself on every family and refuses by name what it cannot serve."""

from __future__ import annotations

import pytest
import torch

from tests.families import ALL_MODELS, tiny_backbone
from twinlens.attribution.errors import UserError
from twinlens.models.anatomy import answer_positions, position_ids_from_mask
from twinlens.models.anatomy_check import build_anatomy


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


def test_post_norm_opt_is_refused_by_name() -> None:
    backbone = tiny_backbone("opt", do_layer_norm_before=False)
    with pytest.raises(UserError, match="opt-350m"):
        build_anatomy(backbone)


def test_bloom_with_residual_after_the_norm_is_refused_by_name() -> None:
    backbone = tiny_backbone("bloom", apply_residual_connection_post_layernorm=True)
    with pytest.raises(UserError, match="apply_residual_connection_post_layernorm"):
        build_anatomy(backbone)


@pytest.mark.parametrize("part", ["down_projection", "attention_output", "final_norm"])
def test_a_model_that_breaks_an_identity_is_refused_with_layer_and_error(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone("llama")
    from twinlens.models.families import Llama

    if part == "final_norm":
        monkeypatch.setattr(Llama, "final_norm", lambda self, hidden: hidden)
    elif part == "down_projection":
        monkeypatch.setattr(Llama, "down_projection", lambda self, block: block.mlp.gate_proj)
    else:
        monkeypatch.setattr(Llama, "attention_output", lambda self, block: block.mlp.down_proj)
    with pytest.raises((UserError, RuntimeError)) as refused:
        build_anatomy(backbone)
    if isinstance(refused.value, UserError):
        assert "fails in layer" in str(refused.value)
        assert "relative error" in str(refused.value)


def test_answer_position_comes_from_the_mask_on_either_side() -> None:
    right = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    assert answer_positions(right).tolist() == [2, 0, 3]
    left = right.flip(1)
    assert answer_positions(left).tolist() == [3, 3, 3]
    assert position_ids_from_mask(left).tolist() == [[0, 0, 1, 2], [0, 0, 0, 0], [0, 1, 2, 3]]
