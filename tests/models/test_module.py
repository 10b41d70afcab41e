"""The classifier: saved models reload with transformers to the same logits, padding ids never matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from twinlens.attribution.errors import UserError
from twinlens.models.backbone import load_config, load_tokenizer
from twinlens.models.class_labels import require_trained_classifier
from twinlens.models.module import TextClassifier

ARCHITECTURE = {
    "model_type": "gpt_neox",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TINY = "models/tiny"
LABELS = ["yes", "no", "maybe"]


def classifier(head: str = "linear", seed: int = 0, **options: object) -> TextClassifier:
    tokenizer = load_tokenizer(TINY)
    settings = {"architecture": ARCHITECTURE, **options}
    return TextClassifier("test", LABELS, tokenizer, head=head, seed=seed, **settings).eval()  # type: ignore[arg-type]


def batch_of(tokenizer, texts: list[str], side: str = "right") -> dict[str, torch.Tensor]:
    tokenizer.padding_side = side
    encoded = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    return {
        "index": torch.arange(len(texts)),
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "labels": torch.zeros(len(texts), dtype=torch.long),
    }


TEXTS = ["the river is long", "yes", "a longer text about the river and the bridge"]


def test_saved_linear_head_reloads_with_transformers(tmp_path: Path) -> None:
    model = classifier()
    model.save(tmp_path)
    batch = batch_of(model.tokenizer, TEXTS)
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(batch)
        got = reloaded(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(got, expected, atol=1e-6)
    assert [reloaded.config.id2label[i] for i in range(3)] == LABELS
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token_id == reloaded.config.pad_token_id
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_own_reload_gives_the_same_scores(tmp_path: Path, head: str) -> None:
    model = classifier(head)
    model.save(tmp_path)
    again = TextClassifier(
        "again", LABELS, load_tokenizer(str(tmp_path)), path=str(tmp_path), head=head, seed=99
    ).eval()
    batch = batch_of(model.tokenizer, TEXTS, "left")
    with torch.no_grad():
        assert torch.equal(again(batch), model(batch))


def test_padding_side_does_not_matter() -> None:
    model = classifier()
    with torch.no_grad():
        right = model(batch_of(model.tokenizer, TEXTS, "right"))
        left = model(batch_of(model.tokenizer, TEXTS, "left"))
    assert torch.allclose(left, right, atol=1e-5)


def test_new_parameters_depend_on_the_seed_alone() -> None:
    torch.manual_seed(123)
    first = classifier(seed=1)
    torch.manual_seed(456)
    second = classifier(seed=1)
    other = classifier(seed=2)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_real_model_without_pad_token(shared_data: Path, tmp_path: Path) -> None:
    source = str(shared_data / "stories260k" / "hf")
    tokenizer = load_tokenizer(source)
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    model = TextClassifier("stories", LABELS, tokenizer, path=source, seed=0).eval()
    model.save(tmp_path)
    batch = batch_of(tokenizer, ["Once upon a time", "One day, a little girl named Lily found a needle."])
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(batch)
        got = reloaded(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(got, expected, atol=1e-6)
    assert expected[0].ne(expected[1]).any()


def test_a_checkpoint_of_another_architecture_is_refused_before_its_weights(shared_data: Path) -> None:
    source = str(shared_data / "stories260k" / "hf")
    with pytest.raises(UserError, match=r"holds a llama checkpoint.*expects gpt_neox.*model=local"):
        TextClassifier("pythia", LABELS, load_tokenizer(source), path=source, model_type="gpt_neox")


def test_unfitted_checkpoint_is_refused_without_fit(shared_data: Path) -> None:
    source = str(shared_data / "stories260k" / "hf")
    with pytest.raises(UserError, match=r"LlamaForCausalLM.*no classification head"):
        require_trained_classifier(load_config(source), source)


def test_trained_classifier_tells_its_labels(tmp_path: Path) -> None:
    classifier().save(tmp_path)
    assert require_trained_classifier(load_config(str(tmp_path)), str(tmp_path)) == LABELS


@pytest.mark.parametrize("loader", [load_config, load_tokenizer])
def test_missing_checkpoint_is_one_sentence(tmp_path: Path, loader) -> None:
    with pytest.raises(UserError, match=r"cannot be loaded.*set model\.path=DIR"):
        loader(str(tmp_path / "nothing"))


def test_truncated_checkpoint_is_refused_by_its_missing_weight(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = classifier()
    model.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.1." not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks \d+ weights.*layers\.1\."):
        TextClassifier("cut", LABELS, model.tokenizer, path=str(tmp_path))


def test_neither_path_nor_architecture_is_refused() -> None:
    with pytest.raises(UserError, match=r"neither model\.path.*nor model\.architecture"):
        classifier(architecture=None)


def test_infinite_loss_names_step_and_examples() -> None:
    model = classifier()
    model.lm.score.weight.data.fill_(float("inf"))
    batch = batch_of(model.tokenizer, TEXTS)
    with pytest.raises(
        UserError, match=r"training loss in step 0 is NaN or infinite for 3 example\(s\) \(index 0, 1, 2\)"
    ):
        model.training_step(batch, 0)
