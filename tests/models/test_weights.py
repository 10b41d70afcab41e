"""Weights that do not fit are refused by name; only a fit may draw a new head, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.families import save_classifier_of
from tests.tiny_llama import LLAMA
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.readout import readout_of
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel
from twinlens.models.module import TextClassifier
from twinlens.models.readouts import ReadoutChange, readout_change

TINY = "models/tiny"
Weights = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_classifier_of("llama", tmp_path / "model", vocab_size=2048)
    return tmp_path / "model"


def change(folder: Path, changed: Callable[[Weights], Weights]) -> None:
    weights = changed(load_file(folder / "model.safetensors"))
    save_file({name: value.clone() for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def with_(**more: Tensor) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, **{name.replace("__", "."): value for name, value in more.items()}}


def one_layer_more(weights: Weights) -> Weights:
    return {**weights, **{k.replace("layers.2.", "layers.3."): v for k, v in weights.items() if "layers.2." in k}}


def unprefixed(weights: Weights) -> Weights:
    return {name.removeprefix("model."): value for name, value in weights.items()}


def opened(folder: Path, as_it_is: bool, n_labels: int = 2, **options: Any) -> TextClassifier:
    names = ["no", "yes", "maybe"][:n_labels]
    tokenizer = load_tokenizer(TINY, as_it_is=as_it_is)
    return TextClassifier("test", names, tokenizer, path=str(folder), as_it_is=as_it_is, **options)


BROKEN: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "no head": (without("score"), r"lacks 1 weights of a llama model \(first: score\.weight \[2, 32\]\).*fit=true"),
    "head of three classes": (with_(score__weight=torch.zeros(3, 32)), r"score\.weight as \[3, 32\].*\[2, 32\]"),
    "bias of the head": (with_(score__bias=torch.zeros(2)), r"holds 1 weights.*no place for \(first: score\.bias\)"),
    "head by another name": (
        lambda weights: {name.replace("score.", "classifier."): value for name, value in weights.items()},
        r"lacks 1 weights.*score\.weight",
    ),
    "embedding of another size": (
        with_(model__embed_tokens__weight=torch.zeros(2049, 32)),
        r"model\.embed_tokens\.weight as \[2049, 32\].*\[2048, 32\]",
    ),
    "no embedding": (without("embed_tokens"), r"lacks 1 weights.*model\.embed_tokens\.weight \[2048, 32\]"),
    "no norm": (without("model.norm"), r"lacks 1 weights.*model\.norm\.weight"),
    "a block less": (without("layers.1."), r"lacks 9 weights.*model\.layers\.1\."),
    "a block more": (one_layer_more, r"holds 9 weights.*no place for \(first: model\.layers\.3\."),
    "a bias in a block": (
        with_(model__layers__0__mlp__down_proj__bias=torch.zeros(32)),
        r"no place for \(first: model\.layers\.0\.mlp\.down_proj\.bias\)",
    ),
    "a narrower block": (
        with_(model__layers__2__mlp__up_proj__weight=torch.zeros(40, 32)),
        r"model\.layers\.2\.mlp\.up_proj\.weight as \[40, 32\].*\[48, 32\]",
    ),
}
OF_THE_HEAD = ("no head", "head of three classes", "bias of the head", "head by another name")


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("prefixed", [True, False], ids=["whole", "saved without prefix"])
def test_a_classifier_that_is_used_as_it_is_has_exactly_its_weights(broken: str, prefixed: bool, folder: Path) -> None:
    changed, message = BROKEN[broken]
    change(folder, changed)
    if not prefixed:
        change(folder, unprefixed)
        message = message.replace(r"model\.layers\.3", r"(model\.)?layers\.3").replace(
            r"first: model\.layers\.0", r"first: (model\.)?layers\.0"
        )
    with pytest.raises(UserError, match=message):
        opened(folder, as_it_is=True)


@pytest.mark.parametrize("broken", [name for name in BROKEN if name not in OF_THE_HEAD])
def test_a_fit_starts_from_a_whole_model(broken: str, folder: Path) -> None:
    change(folder, BROKEN[broken][0])
    with pytest.raises(UserError, match=BROKEN[broken][1]):
        opened(folder, as_it_is=False)


def test_a_fit_says_which_weights_are_new(folder: Path) -> None:
    assert opened(folder, as_it_is=False).weights_told == f"weights: {folder}; none is new"
    other = opened(folder, as_it_is=False, n_labels=3)
    assert other.weights_told == (f"weights: {folder}; new are score.weight [3, 32] (the checkpoint's is [2, 32])")
    change(folder, lambda weights: {**without("score")(weights), "lm_head.weight": torch.zeros(2048, 32)})
    new = opened(folder, as_it_is=False)
    assert new.weights_told == f"weights: {folder}; new are score.weight [2, 32]; not used: lm_head.weight"
    assert torch.equal(
        new.lm.model.embed_tokens.weight, load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    )


def test_a_head_of_two_layers_lacks_nothing(tmp_path: Path) -> None:
    architecture = {"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    folder = tmp_path / "model"
    TextClassifier("mlp", ["no", "yes"], load_tokenizer(TINY), head="mlp", architecture=architecture).save(folder)
    assert opened(folder, as_it_is=True).weights_told is None
    for changed, message in (
        (without("score.2.bias"), r"score\.2\.bias should be \[2\], but the checkpoint holds no such weight"),
        (with_(score__2__bias=torch.zeros(3)), r"score\.2\.bias should be \[2\].*one of \[3\]"),
        (with_(score__2__bias=torch.zeros(2), score__4__bias=torch.zeros(2)), r"score\.4\.bias should be none"),
    ):
        change(folder, changed)
        with pytest.raises(UserError, match=message):
            opened(folder, as_it_is=True)


def test_only_the_padding_row_joins_the_vocabulary_of_a_fit(folder: Path) -> None:
    tokenizer: Any = load_tokenizer(TINY, as_it_is=True)
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    fitted = TextClassifier("fit", ["no", "yes"], tokenizer, path=str(folder))
    assert fitted.lm.get_input_embeddings().num_embeddings == 2049
    assert fitted.weights_told == (
        f"weights: {folder}; new are row 2048 of the token embedding (padding, which is masked)"
    )
    kept = TextClassifier("own", ["no", "yes"], tokenizer, path=str(folder), as_it_is=True)
    assert kept.lm.get_input_embeddings().num_embeddings == 2048
    assert kept.lm.config.pad_token_id == 0


def test_a_fit_of_a_multi_label_head_is_saved_as_what_it_became(folder: Path, tmp_path: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "problem_type": "multi_label_classification"}))
    opened(folder, as_it_is=False).save(tmp_path / "fitted")
    assert json.loads((tmp_path / "fitted" / "config.json").read_text()).get("problem_type") is None


# -- readouts --------------------------------------------------------------------------------------------------------

SHAPE: Mapping[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 8,
}
CHANGED = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"final_logit_softcapping": 30.0},
}
FOUND = {"granite": ReadoutChange(1, 0.125), "cohere": ReadoutChange(1, 0.25), "gemma2": ReadoutChange(1, 1, 30)}


@pytest.mark.parametrize("model_type", CHANGED)
def test_a_vocabulary_readout_with_a_scale_or_a_cap_gives_the_models_own_logits(
    model_type: str, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(model_type, **{**SHAPE, **CHANGED[model_type]})
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        lm.get_output_embeddings().weight.mul_(100)  # so that the cap shows
    lm.save_pretrained(tmp_path)
    model = LanguageModel("lm", load_tokenizer(TINY), path=str(tmp_path), attention="eager").eval()
    assert model.change == FOUND[model_type]
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = model.lm(ids).logits[:, -1]
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        torch.testing.assert_close(model(batch), logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.engine().states(batch).scores, logits, rtol=1e-5, atol=1e-5)
        states = model.residual_engine().states(batch)
        torch.testing.assert_close(states.scores, logits, rtol=1e-5, atol=1e-5)
        frozen = readout_of(model.residual_engine(), states, logits.argmax(-1)).scores(states.residual[:, -1])
    torch.testing.assert_close(frozen, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", CHANGED)
def test_without_scale_and_cap_it_is_served(model_type: str, tmp_path: Path) -> None:
    plain = {name: None if "soft" in name else 1.0 for name in CHANGED[model_type]}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SHAPE, **plain})).save_pretrained(tmp_path)
    model = LanguageModel("lm", load_tokenizer(TINY), path=str(tmp_path), attention="eager").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        got = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        torch.testing.assert_close(got, model.lm(ids).logits[:, -1])


def test_a_classification_head_has_neither(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gemma2", **{**SHAPE, **CHANGED["gemma2"], "num_labels": 2})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model = opened(tmp_path, as_it_is=True).eval()
    assert model.lm.config._attn_implementation == "eager"  # sdpa has no cap for attention scores either
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        got = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        torch.testing.assert_close(got, model.lm(ids).logits)


def test_a_hidden_state_that_is_scaled_before_the_readout_is_found_and_any_other_change_refused() -> None:
    model = LanguageModel("lm", load_tokenizer(TINY), architecture=LLAMA)
    handle = model.head.register_forward_pre_hook(lambda module, args: (args[0] / 2,))
    assert readout_change(model.lm, model.head, "there") == ReadoutChange(entering=0.5)
    handle.remove()
    model.head.register_forward_pre_hook(lambda module, args: (args[0].abs(),))
    with pytest.raises(UserError, match=r"changed in another way"):
        readout_change(model.lm, model.head, "there")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("as_it_is", [True, False])
def test_weights_that_are_no_numbers_are_refused_by_name(folder: Path, odd: float, as_it_is: bool) -> None:
    def spoiled(weights: Weights) -> Weights:
        weights["model.norm.weight"][:3] = odd
        return weights

    change(folder, spoiled)
    with pytest.raises(UserError, match=r"NaN or infinite numbers in model\.norm\.weight \(3 of 32\)"):
        opened(folder, as_it_is)
