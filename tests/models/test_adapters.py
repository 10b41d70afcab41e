"""Adapters of PEFT: the same logits as PEFT's own model, trained matrices as layers, and what is saved."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.adapters import TOKENIZER, needs_peft, write_adapter, write_base
from tests.combinations import half_long
from tests.families import N_CLASSES, random_batch
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import example_blocks
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.gradients.tape import recording
from twinlens.callbacks.plan.device_rate import shape_of
from twinlens.models.adapters import is_kept
from twinlens.models.backbone import architecture_of, load_config, load_tokenizer
from twinlens.models.class_labels import require_trained_classifier
from twinlens.models.language_model import LanguageModel
from twinlens.models.linear_layers import linear_layers
from twinlens.models.module import TextClassifier

pytestmark = needs_peft
FAMILIES = ["gpt2", "opt", "gpt_neox", "bloom", "llama"]
NAMES = [f"class {number}" for number in range(N_CLASSES)]
USES = ["keep", "merge"]


def classifier(folder: Path, use: Any, names: list[str] = NAMES) -> TextClassifier:
    path = str(folder)
    return TextClassifier("adapted", names, load_tokenizer(path), path=path, seed=5, adapter=use).eval()


def language_model(folder: Path, use: Any) -> LanguageModel:
    return LanguageModel("adapted", load_tokenizer(str(folder)), path=str(folder), adapter=use).eval()


def own_logits(adapted: Any, batch: dict[str, Tensor]) -> Tensor:
    """PEFT's logits of a batch without padding."""
    return adapted(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


@pytest.mark.parametrize("family", half_long(FAMILIES))
@torch.no_grad()
def test_logits_are_those_of_peft_loaded_saved_and_loaded_again(family: str, tmp_path: Path) -> None:
    base, batch = write_base(tmp_path / "model", family), random_batch([6, 6])
    adapted = write_adapter(tmp_path / "adapter", base)
    expected = own_logits(adapted, batch)
    with adapted.disable_adapter():
        assert (own_logits(adapted, batch) - expected).abs().max() > 1e-2
    kept, merged = (classifier(tmp_path / "adapter", use) for use in USES)
    torch.testing.assert_close(kept(batch), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merged(batch), expected, rtol=1e-5, atol=1e-5)  # a sum of weights is rounded
    assert is_kept(kept.lm)
    assert not is_kept(merged.lm)
    for name, model in (("kept", kept), ("merged", merged)):
        model.save(tmp_path / name)
        again = classifier(tmp_path / name, "keep")
        assert torch.equal(again(batch), model(batch))
        assert {n: p.requires_grad for n, p in again.named_parameters()} == {
            n: p.requires_grad for n, p in model.named_parameters()
        }
    torch.testing.assert_close(own_logits(adapted.merge_and_unload(), batch), merged(batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{"bias": "all"}, {"init_lora_weights": "pissa"}, {"use_rslora": True}])
@torch.no_grad()
def test_settings_that_reach_into_the_base(settings: dict[str, Any], tmp_path: Path) -> None:
    """Trained biases, a base that gives its leading part away, another scale; once more after saving."""
    batch = random_batch([6, 6])
    adapted = write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", "gpt_neox"), **settings)
    for use in USES:
        model = classifier(tmp_path / "adapter", use)
        torch.testing.assert_close(model(batch), own_logits(adapted, batch), rtol=1e-5, atol=1e-5)
        model.save(tmp_path / use)
        assert torch.equal(classifier(tmp_path / use, use)(batch), model(batch))


@torch.no_grad()
def test_peft_reads_what_is_saved(tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForSequenceClassification

    batch = random_batch([6, 6])
    adapted = write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", "llama"), modules_to_save=["score"])
    expected = own_logits(adapted, batch)
    classifier(tmp_path / "adapter", "keep").save(tmp_path / "kept")
    classifier(tmp_path / "adapter", "merge").save(tmp_path / "merged")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept" / "base")
    found = peft.PeftModel.from_pretrained(base, tmp_path / "kept").eval()
    torch.testing.assert_close(own_logits(found, batch), expected, rtol=1e-6, atol=1e-6)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(own_logits(plain, batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_gradients_of_the_matrices_are_autograds(family: str, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", family))
    model = classifier(tmp_path / "adapter", "keep").double().requires_grad_(False)
    batch = random_batch([5, 3, 6])
    layers = linear_layers(model.lm, model.head, "*lora*")
    assert {layer.name.split(".")[-2] for layer in layers} == {"lora_A", "lora_B"}
    found: dict[int, Tensor] = {}
    with recording(layers) as tape:
        scores = model(batch)
        tape.gradients(
            scores,
            logit_cotangents(scores.detach(), batch["labels"]),
            lambda number, inputs, deltas: found.update({number: example_blocks(inputs, deltas, 3)}),
        )
    weights: list[Any] = [layer.module.weight.requires_grad_(True) for layer in layers]
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in batch.items()}
        expected = torch.autograd.grad(cross_entropy(model(one), one["labels"]), weights)
        for number, gradient in enumerate(expected):
            torch.testing.assert_close(found[number][row], gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("family", half_long(FAMILIES[::-1]))
@torch.no_grad()
def test_neurons_of_kept_adapters_are_those_of_merged_ones(family: str, tmp_path: Path) -> None:
    """Values, keys and edited scores count the low-rank products in."""
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", family))
    batch = random_batch([5, 7])
    kept, merged = (classifier(tmp_path / "adapter", use).requires_grad_(False) for use in USES)
    units = torch.arange(8)
    engines, streams = [m.engine() for m in (kept, merged)], [m.residual_engine() for m in (kept, merged)]
    close = {"rtol": 1e-4, "atol": 1e-5}
    for layer in range(engines[0].n_layers):
        torch.testing.assert_close(*(e.values(layer) for e in engines), **close)
        torch.testing.assert_close(*(s.attention_values(layer) for s in streams), **close)
        for a, b in zip(*(s.mlp_keys(layer, units) for s in streams), strict=True):
            torch.testing.assert_close(a, b, **close)
        for a, b in zip(*(s.attention_keys(layer, units) for s in streams), strict=True):
            torch.testing.assert_close(a, b, **close)

    def halved(layer: int, activation: Tensor) -> Tensor:
        return activation * 0.5 if layer == 1 else activation

    torch.testing.assert_close(*(e.score_edits(e.states(batch), halved, 1) for e in engines), **close)


def test_training_moves_the_matrices_and_the_head_alone(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", "gpt_neox"), modules_to_save=["embed_in"])
    kept = classifier(tmp_path / "adapter", "keep")
    trained = {
        name.split(".lora_")[0] if "lora_" in name else name for name, p in kept.named_parameters() if p.requires_grad
    }
    plain = {name for name in trained if name.startswith("lm.gpt_neox.layers") is False}
    assert plain == {"lm.score.weight", "lm.gpt_neox.embed_in.weight"}
    assert len(trained - plain) == 3 * 4
    merged = classifier(tmp_path / "adapter", "merge")
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_the_trained_head_is_taken_over_and_one_of_other_labels_is_not(tmp_path: Path) -> None:
    base = write_base(tmp_path / "model", "llama", causal=True)
    adapted = write_adapter(tmp_path / "adapter", base, n_labels=4, target_modules=["q_proj"])
    score = adapted.get_base_model().score.modules_to_save["default"].weight
    config = load_config(str(tmp_path / "adapter"))
    assert len(require_trained_classifier(config, "adapter")) == 4
    four = [str(number) for number in range(4)]
    for use in USES:
        assert torch.equal(classifier(tmp_path / "adapter", use, four).head.weight, score)
        assert classifier(tmp_path / "adapter", use).head.weight.shape[0] == N_CLASSES


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("use", USES)
@torch.no_grad()
def test_a_language_model_and_its_adapter_as_a_classifier(family: str, use: str, tmp_path: Path) -> None:
    base, batch = write_base(tmp_path / "model", family, causal=True), random_batch([6, 6])
    adapted = write_adapter(tmp_path / "adapter", base, task="CAUSAL_LM")
    model = language_model(tmp_path / "adapter", use)
    expected = own_logits(adapted, batch)[:, -1]
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "again")
    assert torch.equal(language_model(tmp_path / "again", use)(batch), model(batch))
    hidden = adapted.get_base_model().base_model(**{k: batch[k] for k in ("input_ids", "attention_mask")})
    torch.testing.assert_close(
        classifier(tmp_path / "adapter", use).features(batch), hidden.last_hidden_state[:, -1], rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_an_adapter_on_a_tied_readout_changes_the_readout_alone(tmp_path: Path) -> None:
    base, batch = write_base(tmp_path / "model", "gpt2", causal=True), random_batch([6, 6])
    adapted = write_adapter(tmp_path / "adapter", base, task="CAUSAL_LM", target_modules=["c_attn", "lm_head"])
    model = language_model(tmp_path / "adapter", "merge")
    torch.testing.assert_close(model(batch), own_logits(adapted, batch)[:, -1], rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "merged")
    assert torch.equal(language_model(tmp_path / "merged", "merge")(batch), model(batch))
    with pytest.raises(UserError, match=r"changes lm_head .*model\.adapter=merge"):
        language_model(tmp_path / "adapter", "keep")


@torch.no_grad()
def test_other_kinds_are_merged_and_not_kept(tmp_path: Path) -> None:
    import peft

    base, batch = write_base(tmp_path / "model", "llama"), random_batch([6, 6])
    kinds = {
        "loha": {"config": peft.LoHaConfig, "r": 2, "target_modules": ["q_proj"]},
        "dora": {"use_dora": True},
        "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    }
    for name, settings in kinds.items():
        adapted = write_adapter(tmp_path / name, base, **settings)
        expected = own_logits(adapted, batch)
        torch.testing.assert_close(classifier(tmp_path / name, "merge")(batch), expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(UserError, match=r"model\.adapter=merge"):
            classifier(tmp_path / name, "keep")


@torch.no_grad()
def test_tokens_that_were_added_before_training(tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    base, batch = write_base(tmp_path / "model", "llama", causal=True), random_batch([6, 6])
    lm: Any = AutoModelForCausalLM.from_pretrained(base)
    lm.resize_token_embeddings(len(load_tokenizer(TOKENIZER)) + 1)
    adapted = peft.get_peft_model(lm, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    for use in USES:
        model = language_model(tmp_path / "adapter", use)
        torch.testing.assert_close(model(batch), own_logits(adapted, batch)[:, -1], rtol=1e-5, atol=1e-5)


def test_shapes_of_a_plan_are_those_of_the_loaded_model(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", "gpt2"))
    path = str(tmp_path / "adapter")
    for use in ("keep", "merge"):
        lm = architecture_of(path, None, "linear", NAMES, 0, "sdpa", False, use)
        loaded = classifier(tmp_path / "adapter", use).lm
        assert {n: p.shape for n, p in lm.named_parameters()} == {n: p.shape for n, p in loaded.named_parameters()}
        assert all(parameter.device.type == "meta" for parameter in lm.parameters())
        assert [p.requires_grad for p in lm.parameters()] == [p.requires_grad for p in loaded.parameters()]
        shape = shape_of(lm)
        low_rank = sum(p.numel() for name, p in lm.named_parameters() if "lora_" in name)
        trained = low_rank + lm.score.weight.numel() if use == "keep" else shape.parameters
        assert shape.trained_parameters == trained > 0


def test_where_the_base_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", "llama"), target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(file.read_text())

    def loads(base: str) -> str:
        file.write_text(json.dumps({**settings, "base_model_name_or_path": base}))
        return load_config(str(tmp_path / "adapter")).model_type

    assert loads("../model") == "llama"  # relative to the adapter
    with pytest.raises(UserError, match="changes the base model, which cannot be loaded"):
        loads("model")
    monkeypatch.chdir(tmp_path)
    assert loads("model") == "llama"  # relative to the working directory
    with pytest.raises(UserError, match=r"changes the base '\./nowhere'.*base_model_name_or_path"):
        loads("./nowhere")
    with pytest.raises(UserError, match="is an adapter itself"):
        loads(".")
    with pytest.raises(UserError, match="owner/name, which cannot be loaded"):
        loads("owner/name")


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "model", "llama")
    write_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    shutil.rmtree(base)
    write_base(base, "gpt2")
    for use in USES:
        with pytest.raises(UserError, match=r"adapter"):
            classifier(tmp_path / "adapter", use)
    shutil.rmtree(base)
    write_base(base, "llama", num_hidden_layers=4)
    with pytest.raises(UserError, match=r"lacks 2 weights"):
        classifier(tmp_path / "adapter", "keep")


def test_without_peft_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "model", "llama"), target_modules=["q_proj"])
    monkeypatch.setitem(sys.modules, "peft", None)
    for use in USES:
        with pytest.raises(UserError, match=r"PEFT is not installed.*pip install -c constraints\.txt -e '\.\[peft\]'"):
            classifier(tmp_path / "adapter", use)


def test_new_matrices_leave_a_classifiers_head_alone_which_is_trained_itself(tmp_path: Path) -> None:
    base = write_base(tmp_path / "model", "llama", causal=True)
    model = classifier(base, "lora")
    trained = {name for name, value in model.lm.named_parameters() if value.requires_grad}
    assert "score.weight" in trained
    assert {name for name in trained if "lora_" not in name} == {"score.weight"}
    assert not any(name.startswith("score.") and "lora_" in name for name in trained)
