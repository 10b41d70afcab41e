"""Weights in bfloat16: read as they are stored, never as a float32 copy, with a head in float32; the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.adapters import needs_peft
from tests.families import save_classifier_of
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.passes.shapes import shape_of
from twinlens.callbacks.plan.device_rate import computed_in
from twinlens.models.adapters import weight_of
from twinlens.models.backbone import architecture_of, load_config, load_tokenizer
from twinlens.models.checkpoint_settings import attention_of, attentions_for, told_attention
from twinlens.models.language_model import LanguageModel
from twinlens.models.module import TextClassifier
from twinlens.models.weight_types import refuse_rounded_steps, told_type, weight_type

TINY = "models/tiny"
SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 2112}  # fmt: skip
SHARDS = "60KB"
IDS = torch.tensor([[5, 6, 7, 8]])
BATCH = {"index": torch.tensor([0]), "input_ids": IDS, "attention_mask": torch.ones_like(IDS),
         "labels": torch.tensor([-1]), "target": torch.tensor([9])}  # fmt: skip


def saved_lm(folder: Path, dtype: torch.dtype, model_type: str = "llama", **more: Any) -> Path:
    """A random language model in several files of a type."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SIZES, **more}))
    with torch.no_grad():
        for weight in lm.parameters():
            weight.add_(torch.randn_like(weight) * (0.02 if weight.dim() == 1 else 0.2))
    lm.to(dtype).save_pretrained(folder, max_shard_size=SHARDS)
    load_tokenizer(TINY).save_pretrained(folder)
    return folder


def language_model(folder: Path, dtype: str, **more: Any) -> LanguageModel:
    return LanguageModel("lm", load_tokenizer(str(folder)), path=str(folder), dtype=dtype, **more).eval()


def stored(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


class WideTensors(TorchDispatchMode):
    """Sizes of the float32 and float64 tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            wide = isinstance(one, Tensor) and one.dtype in (torch.float32, torch.float64)
            if wide and one.device.type != "meta":
                self.sizes.append(one.numel())
        return found


@contextmanager
def largest_wide() -> Iterator[list[int]]:
    """Numbers of the largest tensor in float32 or more that is made inside."""
    largest: list[int] = []
    with WideTensors() as mode:
        yield largest
    largest.append(max(mode.sizes, default=0))


@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_a_sharded_checkpoint_is_read_as_it_is_stored_and_never_widened(tmp_path: Path, dtype: str) -> None:
    folder = saved_lm(tmp_path, torch.bfloat16)
    assert len(list(folder.glob("*.safetensors"))) > 2
    with largest_wide() as largest:
        model = language_model(folder, dtype)
    own = stored(folder)
    matrix = SIZES["hidden_size"] * SIZES["intermediate_size"]
    assert largest[0] < matrix  # three tokens' scores are the largest
    with largest_wide() as widened:
        language_model(folder, "float32")
    assert widened[0] >= matrix  # so that the test can fail
    assert {value.dtype for value in model.lm.parameters()} == {torch.bfloat16} == {model.weights_in}
    assert all(torch.equal(value, own[name]) for name, value in model.lm.named_parameters())
    model.save(tmp_path / "again")
    again = stored(tmp_path / "again")
    assert all(torch.equal(again[name], value) for name, value in own.items())


def test_a_pickle_keeps_its_type(tmp_path: Path) -> None:
    folder = saved_lm(tmp_path, torch.bfloat16)
    own = stored(folder)
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()
    torch.save(own, folder / "pytorch_model.bin")
    model = language_model(folder, "auto")
    assert {value.dtype for value in model.lm.parameters()} == {torch.bfloat16}
    assert all(torch.equal(value, own[name]) for name, value in model.lm.named_parameters())


def test_what_auto_reads(tmp_path: Path) -> None:
    folder = saved_lm(tmp_path / "model", torch.bfloat16)
    path, config = str(folder), load_config(str(folder))
    assert weight_type("auto", config, path) == torch.bfloat16
    assert told_type("auto", config, path) == "model.dtype=auto: read in bfloat16, the checkpoint's own type"
    assert told_type("float32", config, path) == ""
    settings = json.loads((folder / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        settings.pop(name, None)
    (folder / "config.json").write_text(json.dumps(settings))
    silent = load_config(path)
    assert weight_type("auto", silent, path) == torch.bfloat16  # of the files' headers
    for file in folder.glob("*.safetensors"):
        file.unlink()
    assert weight_type("auto", silent, path) == torch.float32
    assert "names no type" in told_type("auto", silent, path)
    half = saved_lm(tmp_path / "half", torch.float16)
    config = load_config(str(half))
    assert weight_type("auto", config, str(half)) == torch.float32
    assert "is in float16, read in float32; model.dtype=bfloat16 takes half" in told_type("auto", config, str(half))
    assert weight_type("auto", None, None) == torch.float32
    with pytest.raises(UserError, match=r"model\.dtype=float16 .*float32, bfloat16, auto"):
        weight_type("float16", None, None)


def test_a_classifier_has_a_float32_head_with_all_its_digits_and_keeps_it(tmp_path: Path) -> None:
    save_classifier_of("llama", tmp_path / "model", vocab_size=2112, pad_token_id=0)
    load_tokenizer(TINY).save_pretrained(tmp_path / "model")

    def opened(folder: Path) -> TextClassifier:
        tokenizer = load_tokenizer(TINY)
        given = {"path": str(folder), "as_it_is": True, "dtype": "bfloat16"}
        return TextClassifier("c", ["no", "yes"], tokenizer, **given).eval()  # type: ignore[arg-type]

    model, own = opened(tmp_path / "model"), stored(tmp_path / "model")
    assert torch.equal(model.lm.score.weight, own["score.weight"])
    assert not torch.equal(own["score.weight"], own["score.weight"].bfloat16().float())
    rest = {name: value for name, value in model.lm.named_parameters() if name != "score.weight"}
    assert {value.dtype for value in rest.values()} == {torch.bfloat16}
    assert [name for name, value in model.lm.named_parameters() if value.requires_grad] == ["score.weight"]
    with torch.no_grad():
        hidden = model.features(BATCH)
        assert hidden.dtype == torch.bfloat16
        torch.testing.assert_close(model(BATCH), hidden.float() @ own["score.weight"].T)
        states = model.engine().states(BATCH)
        torch.testing.assert_close(states.scores, model(BATCH), rtol=1e-2, atol=1e-2)
    model.save(tmp_path / "again")
    again = opened(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(model.lm.parameters(), again.lm.parameters(), strict=True))
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert stock.dtype == torch.bfloat16
    refuse_rounded_steps(model.lm)
    model.lm.requires_grad_(True)
    with pytest.raises(UserError, match=r"in bfloat16 .*trainer\.precision=bf16-mixed, or model\.adapter=lora"):
        refuse_rounded_steps(model.lm)


@pytest.mark.parametrize("model_type", ["llama", pytest.param("gpt_neox", marks=pytest.mark.long)])
def test_neurons_rank_as_in_float32(tmp_path: Path, model_type: str) -> None:
    folder = saved_lm(tmp_path, torch.bfloat16, model_type)
    method, lists = IntegratedGradients(preset="gauss", n_steps=4, top_k=20), []
    for dtype in ("float32", "bfloat16"):
        model = language_model(folder, dtype).requires_grad_(False)
        found = method.attribute(model.engine(), BATCH, 2**24)
        assert found.score.dtype == torch.float32
        lists.append({*zip(found.layer[0].tolist(), found.unit[0].tolist(), strict=True)})
        model.residual_engine()
    assert len(lists[0] & lists[1]) >= 16


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("granite", {"logits_scaling": 2.5}),
        ("gemma2", {"final_logit_softcapping": 0.7, "head_dim": 16}),
    ],
)
def test_scale_and_cap_of_a_readout_are_found_in_either_type(
    tmp_path: Path, model_type: str, changes: dict[str, float]
) -> None:
    folder = saved_lm(tmp_path, torch.bfloat16, model_type, **changes)
    narrow, wide = (language_model(folder, dtype) for dtype in ("bfloat16", "float32"))
    assert narrow.change == wide.change
    narrow.engine()


@needs_peft
def test_new_matrices_beside_bfloat16_are_float32_and_alone_trained(tmp_path: Path) -> None:
    model = language_model(saved_lm(tmp_path, torch.bfloat16), "bfloat16", adapter="lora")
    trained = {name: value for name, value in model.lm.named_parameters() if value.requires_grad}
    assert trained
    assert all("lora_" in name and value.dtype == torch.float32 for name, value in trained.items())
    refuse_rounded_steps(model.lm)
    with torch.no_grad():
        for value in trained.values():
            value.add_(0.05 * torch.randn_like(value))
    part = model.backbone.layers[0].mlp.down_proj
    assert weight_of(part).dtype == torch.bfloat16
    model.engine()  # the identities hold
    model.save(tmp_path / "again")
    again = language_model(tmp_path / "again", "bfloat16")
    with torch.no_grad():
        assert torch.equal(again(BATCH), model(BATCH))


def test_planned_sizes_are_those_of_the_types() -> None:
    settings = {"model_type": "llama", **SIZES}
    given = (None, settings, "linear", ["a", "b"], 2112, "sdpa", False)
    wide, narrow = (shape_of(architecture_of(*given, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    head = 2 * SIZES["hidden_size"]
    assert wide.weight_bytes == 4 * wide.parameters
    assert narrow.weight_bytes == 2 * (narrow.parameters - head) + 4 * head
    assert (narrow.trained_parameters, wide.trained_parameters) == (head, wide.parameters)
    assert (narrow.footprint.element_size, wide.footprint.element_size) == (2, 4)
    assert narrow.footprint.states(16) * 2 == wide.footprint.states(16)
    assert computed_in("32-true", torch.bfloat16) == torch.bfloat16
    assert computed_in("32-true") == torch.float32


def test_what_is_stored_of_each_type_has_a_key_of_its_own() -> None:
    make: Any = None
    wide, narrow = (TrainerFactory(make, weights_in=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert wide.numbers == "32-true"
    assert narrow.numbers == "32-true on torch.bfloat16"
    assert (wide.casts_to, TrainerFactory(make, "bf16-true").casts_to) == (None, torch.bfloat16)


@pytest.mark.parametrize("model_type", ["gemma2", "gpt_oss"])
def test_a_type_without_sdpa_is_read_with_eager_attention(tmp_path: Path, model_type: str) -> None:
    more = {"head_dim": 16} | ({"num_local_experts": 2, "num_experts_per_tok": 1} if model_type == "gpt_oss" else {})
    folder = saved_lm(tmp_path, torch.float32, model_type, **more)
    config = load_config(str(folder))
    assert "sdpa" not in attentions_for(config)
    assert told_attention(config, "sdpa") == f"attention: eager, as transformers has no sdpa for {model_type}"
    assert told_attention(config, "eager") == ""
    model = language_model(folder, "float32")
    assert model.lm.config._attn_implementation == "eager"
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")(IDS).logits[:, -1]
        torch.testing.assert_close(model(BATCH), expected)


def test_an_attention_that_is_not_written_for_a_type_is_refused() -> None:
    config = AutoConfig.for_model("bloom")
    assert attentions_for(config) == ("eager",)
    assert attention_of(config, "sdpa") == "eager"
    with pytest.raises(UserError, match=r"flex_attention is not written for the type bloom .*model\.attention=eager"):
        attention_of(config, "flex_attention")


def test_a_header_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:9])
    assert weight_type("auto", AutoConfig.for_model("llama", **SIZES), str(tmp_path)) == torch.float32
