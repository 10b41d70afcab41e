"""The shipped tokenizer is the one its command makes, and it can write any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinlens.data.demo_sentences import FIRST_NAMES, LAST_NAMES, PLACES
from twinlens.data.tiny_tokenizer import main


def test_training_it_again_gives_the_shipped_files(tmp_path: Path, repository: Path):
    main(["--output", str(tmp_path)])
    shipped = repository / "models" / "tiny"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (shipped / file.name).read_bytes()


def test_special_tokens(tokenizer: Any):
    assert len(tokenizer) <= 2048
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("<pad>", "<bos>", "<eos>")
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    assert tokenizer.is_fast


def test_names_and_prompt_words_are_single_tokens(tokenizer: Any):
    for word in [*FIRST_NAMES, *LAST_NAMES, *PLACES, "Evidence", "Answer"]:
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1, word


def test_real_claims_do_not_fall_into_bytes(tokenizer: Any):
    claim = "According to official reports, the president said that taxes would rise for most families next year."
    assert len(tokenizer(claim, add_special_tokens=False)["input_ids"]) < len(claim) / 3


@given(text=st.text(st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives(tokenizer: Any, text: str):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not any(special in text for special in tokenizer.all_special_tokens):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
