"""The language model as a module: loaded as transformers loads it, saved and trained; the shipped facts model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GPT2Config, GPT2ForSequenceClassification

from twinlens.attribution.errors import UserError
from twinlens.data.fact_sentences import FactSentencesDataModule
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def tokenizer(repository: Path) -> Any:
    return load_tokenizer(str(repository / "models" / "facts"))


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> LanguageModel:
    return LanguageModel("small", tokenizer, architecture=LLAMA).eval()


def batch_of(tokenizer: Any, *texts: str) -> dict[str, torch.Tensor]:
    rows = tokenizer(list(texts), add_special_tokens=False, padding=True, return_tensors="pt")
    number = torch.arange(len(texts))
    return {"index": number, "labels": number, **{name: rows[name] for name in ("input_ids", "attention_mask")}}


@torch.no_grad()
def test_scores_are_those_of_the_whole_model_at_the_last_token(model: LanguageModel, tokenizer: Any) -> None:
    texts = ("The capital of France is", "In Spain people")
    scores = model(batch_of(tokenizer, *texts))
    for row, text in enumerate(texts):
        alone = model.lm(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, -1]
        torch.testing.assert_close(scores[row], alone, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_mean_over_all_tokens_that_follow_one(model: LanguageModel, tokenizer: Any) -> None:
    texts = ("The capital of France is Paris.", "In Spain")
    model.log = lambda *arguments, **options: None  # type: ignore[method-assign]  # no trainer is attached
    loss = model.training_step(batch_of(tokenizer, *texts), 0)
    losses = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        losses.append(cross_entropy(model.lm(ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    torch.testing.assert_close(loss, torch.cat(losses).mean(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_saved_it_loads_with_transformers_and_again_here(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    model.save(tmp_path)
    batch = batch_of(tokenizer, "The capital of France is")
    again = LanguageModel("again", load_tokenizer(str(tmp_path)), path=str(tmp_path), model_type="llama").eval()
    assert torch.equal(again(batch), model(batch))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(plain(batch["input_ids"]).logits[:, -1], model(batch), rtol=1e-5, atol=1e-5)


def test_the_same_seed_draws_the_same_model(model: LanguageModel, tokenizer: Any) -> None:
    same, other = (LanguageModel("m", tokenizer, architecture=LLAMA, seed=seed) for seed in (0, 1))
    assert torch.equal(same.head.weight, model.head.weight)
    assert not torch.equal(other.head.weight, model.head.weight)


def test_a_prompt_longer_than_the_model_is_refused(model: LanguageModel, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="has 40 tokens, but model=small has 32 positions"):
        model(batch_of(tokenizer, "the " * 39 + "the"))


def test_what_is_no_language_model_is_refused(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    small = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1)
    GPT2ForSequenceClassification(small).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="holds a classifier"):
        LanguageModel("m", tokenizer, path=str(tmp_path))
    with pytest.raises(UserError, match=r"neither model\.path"):
        LanguageModel("m", tokenizer)


def test_a_tokenizer_of_another_model_is_refused_but_a_padding_token_is_not(
    model: LanguageModel, repository: Path, tmp_path: Path
) -> None:
    model.save(tmp_path)
    with pytest.raises(UserError, match=r"set model\.tokenizer_path"):
        LanguageModel("m", load_tokenizer(str(repository / "models" / "tiny")), path=str(tmp_path))
    padded = load_tokenizer(str(repository / "models" / "facts"))
    padded.add_special_tokens({"pad_token": "<another pad>"})
    grown = LanguageModel("m", padded, path=str(tmp_path))
    assert grown.head.weight.shape[0] == padded.pad_token_id


def test_seconds_of_training_teach_it_something(tokenizer: Any) -> None:
    data = FactSentencesDataModule(variants=1, max_length=32, batch_size=64, limit={"train": 640, "validation": 50})
    data.prepare(tokenizer)
    model = LanguageModel("small", tokenizer, architecture=LLAMA, learning_rate=5e-3, schedule="linear")
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data.train_dataloader(), data.val_dataloader())
    assert trainer.callback_metrics["train/loss"] < 0.8 * math.log(len(tokenizer))
    assert 0 <= trainer.callback_metrics["validation/accuracy"] <= 1
