"""Tokenizers whose rules make texts many times longer are refused before a text is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from twinlens.attribution.errors import UserError
from twinlens.data.tokenizer_bounds import refuse_growing


def with_rules(normalizer: Any = None, processor: Any = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<s>": 2}, "a"))
    if normalizer is not None:
        backend.normalizer = normalizer
    if processor is not None:
        backend.post_processor = processor
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Replace("a", "a" * 1000),
        normalizers.Sequence([normalizers.Replace("a", "a" * 50), normalizers.Replace("a", "a" * 50)]),
        normalizers.Sequence([normalizers.NFC(), normalizers.Sequence([normalizers.Replace(Regex("."), "b" * 300)])]),
        normalizers.Prepend("a" * 5000),
    ],
)
def test_growing_rules_are_refused(normalizer: Any) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json\) make a text up to .* expected at most 100 times"):
        refuse_growing(with_rules(normalizer))


def test_a_template_of_thousands_of_tokens_is_refused() -> None:
    processor = processors.TemplateProcessing(single="<s> " * 2000 + "$A", special_tokens=[("<s>", 2)])
    with pytest.raises(UserError, match="longer by 2001"):
        refuse_growing(with_rules(processor=processor))


def test_common_tokenizers_pass(repository: Path) -> None:
    for folder in ("tiny", "facts"):
        refuse_growing(AutoTokenizer.from_pretrained(repository / "models" / folder))
    refuse_growing(with_rules(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])))


def test_tokenizers_of_real_models_pass(shared_data: Path) -> None:
    folders = [file.parent for file in sorted((shared_data / "tokenizers").rglob("tokenizer.json"))]
    for folder in folders:
        refuse_growing(PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")))
    assert folders
