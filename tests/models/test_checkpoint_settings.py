"""Settings of a checkpoint that would fetch or run code, or fill the memory, are refused before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from twinlens.attribution.errors import UserError
from twinlens.models.backbone import architecture_of, load_config
from twinlens.models.checkpoint_settings import check_settings, least_parameters, told_unused

DECODER = {
    "model_type": "gpt_neox", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "vocab_size": 64,
}  # fmt: skip
FETCHES: list[dict[str, Any]] = [
    {"use_kernels": True}, {"use_kernels": "yes"}, {"kernel_config": {"kernel_mapping": {"RMSNorm": "a/b"}}},
    {"attn_implementation": "kernels-community/flash-attn"}, {"_attn_implementation": "someone/kernel@main:f"},
    {"_attn_implementation_internal": "paged|someone/kernel"}, {"attn_implementation": {"": "a/b"}},
    {"experts_implementation": "deepgemm"}, {"_experts_implementation": "someone/experts"},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    {"quantization_config": {"quant_method": "gptq"}}, {"compression_config": {"format": "dense"}},
    {"transformers_weights": "other.bin"}, {"use_timm_backbone": True}, {"use_pretrained_backbone": True},
    {"trust_remote_code": True}, {"text_config": {"use_kernels": True}}, {"parts": [{"attn_implementation": "a/b"}]},
]  # fmt: skip
ABSURD: list[dict[str, Any]] = [
    {"num_hidden_layers": 10**7}, {"hidden_size": 10**9}, {"intermediate_size": 10**12}, {"vocab_size": 10**10},
    {"num_attention_heads": 10**8}, {"num_labels": 10**9}, {"max_position_embeddings": 10**12}, {"n_layer": 10**7},
    {"num_local_experts": 10**8}, {"text_config": {"num_hidden_layers": 10**7}}, {"hidden_size": float("inf")},
    {"hidden_size": float("nan")}, {"n_embd": 10**400}, {"encoder_layers": 5000}, {"q_lora_rank": 10**9},
]  # fmt: skip


@pytest.mark.parametrize("settings", [*FETCHES, *ABSURD], ids=str)
def test_refused_in_a_folder_and_from_scratch(tmp_path: Path, settings: dict[str, Any]) -> None:
    (name,) = settings
    (tmp_path / "config.json").write_text(json.dumps({**DECODER, **settings}))
    with pytest.raises(UserError, match=rf"config.json sets (\w+\.)*{name}|config.json sets {name}\."):
        load_config(str(tmp_path))
    if name in ("vocab_size", "num_labels"):
        return  # from scratch the tokenizer and the data say these
    with pytest.raises(UserError, match=r"model\.architecture sets "):
        architecture_of(None, {**DECODER, **settings}, "linear", ["a", "b"], 64, "sdpa", False)


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"attn_implementation": "eager"}, {"_attn_implementation": None}, {"quantization_config": None},
        {"use_kernels": False}, {"max_position_embeddings": 10_485_760}, {"num_hidden_layers": 126},
        {"vocab_size": 262_144}, {"rope_theta": 10**9}, {"sliding_window": 10**9}, {"hidden_size": 16_384},
        {"auto_map": {"AutoConfig": "code.Own"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_known_models_have_passes(settings: dict[str, Any]) -> None:
    check_settings({**DECODER, **settings}, "x", "y")


def test_code_beside_a_model_that_transformers_knows_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\nclass Own: pass\n")
    mapped = {"auto_map": {"AutoConfig": "code.Own", "AutoModelForSequenceClassification": "code.Own"}}
    (tmp_path / "config.json").write_text(json.dumps({**DECODER, **mapped}))
    load_config(str(tmp_path))
    architecture_of(str(tmp_path), None, "linear", ["a", "b"], 64, "sdpa", False)
    assert not (tmp_path / "mark").exists()


def test_sizes_beyond_the_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**DECODER, "hidden_size": 2**16, "num_hidden_layers": 500}))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match=r"describes at least \d+ parameters, but its weights are 1000 bytes"):
        load_config(str(tmp_path))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**DECODER, "id2label": dict.fromkeys(range(200000), "x" * 50)}))
    with pytest.raises(UserError, match=r"config\.json has \d+ bytes"):
        load_config(str(tmp_path))


def test_more_parameters_than_memory_are_refused_before_they_are_drawn() -> None:
    from twinlens.models.backbone import load_classifier

    settings = {**DECODER, "hidden_size": 2**20, "num_hidden_layers": 1000, "intermediate_size": 2**22}
    with pytest.raises(UserError, match="of parameters, and this machine has"):
        load_classifier(None, settings, None, "linear", ["a", "b"], range(64), 0, "sdpa", False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model_type": "nothing"}, "cannot be built"),
        ({"model_type": None}, "no model_type"),
        ({"hidden_size": 15, "num_attention_heads": 4}, "cannot be built"),
        ({"hidden_size": "many"}, "cannot be built"),
    ],
)
def test_settings_that_do_not_fit_are_a_sentence(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        architecture_of(None, {**DECODER, **settings}, "linear", ["a", "b"], 64, "sdpa", False)


@pytest.mark.parametrize("attention", ["kernels-community/flash-attn", "someone/kernel:f", "paged|x", ""])
def test_an_attention_of_somebody_else_is_refused(attention: str) -> None:
    with pytest.raises(UserError, match=r"model\.attention"):
        architecture_of(None, DECODER, "linear", ["a", "b"], 64, attention, False)


def test_the_bound_is_below_what_a_model_has() -> None:
    lm = architecture_of(None, DECODER, "linear", ["a", "b"], 64, "sdpa", False)
    assert least_parameters(DECODER) <= sum(parameter.numel() for parameter in lm.parameters())
    assert torch.get_default_device().type == "cpu"


@pytest.mark.parametrize("text", ["[]", "null", "3", '"gpt2"'])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json holds .*expected a JSON object|cannot be loaded"):
        load_config(str(tmp_path))


def test_settings_of_a_model_from_scratch_beside_a_checkpoint_are_told() -> None:
    checkpoint = AutoConfig.for_model(**DECODER)
    assert told_unused(None, checkpoint, "DIR") == ""
    assert told_unused(DECODER, checkpoint, "DIR") == ""
    assert told_unused({**DECODER, "rope_parameters": {"rope_theta": 5.0}, "of_no_model": 3}, checkpoint, "DIR") == ""
    assert told_unused({**DECODER, "hidden_size": 64, "num_hidden_layers": 2}, checkpoint, "DIR") == (
        "model.architecture is of a model from scratch and changes nothing here: model.path=DIR has other values of "
        "hidden_size 64 (16), num_hidden_layers 2 (1); write model.path=null to start from scratch"
    )
