"""Templates and truncation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from twinlens.attribution.errors import UserError
from twinlens.data.input_form import InputForm, SpecialTokens, bos_alone, notes_of
from twinlens.data.templates import encode, parse_template

TEMPLATE = "Claim : {claim}/ Evidence : {evidence}/ Answer :"
COLUMNS = ["claim", "evidence"]
TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SHARED_TOKENIZERS = ["tokenizers/gpt2/tokenizer.json", "tokenizers/neox/tokenizer.json", "stories260k/hf"]


def encode_one(tokenizer: Any, row: dict[str, str], max_length: int, bos: bool = True, cut: str | None = "evidence"):
    template = parse_template(TEMPLATE, COLUMNS, cut)
    text, span = template.render(row)
    return text, span, encode(tokenizer, [text], [span], InputForm(bos_alone(tokenizer, bos), max_length))[0]


def is_subsequence_cut(kept: list[int], whole: list[int]) -> bool:
    """Whether `kept` is `whole` with one contiguous stretch removed."""
    removed = len(whole) - len(kept)
    return any(kept == whole[:start] + whole[start + removed :] for start in range(len(kept) + 1))


def test_render_puts_fields_where_the_template_says():
    text, (start, end) = parse_template(TEMPLATE, COLUMNS, "evidence").render({"claim": "A b.", "evidence": "(0)C? d"})
    assert text == "Claim : A b./ Evidence : (0)C? d/ Answer :"
    assert text[start:end] == "(0)C? d"


def test_braces_in_the_data_are_text():
    text, _ = parse_template(TEMPLATE, COLUMNS, None).render({"claim": "{evidence}", "evidence": "{0}{"})
    assert text == "Claim : {evidence}/ Evidence : {0}{/ Answer :"


@pytest.mark.parametrize(
    ("template", "cut", "message"),
    [
        ("Claim : {claim", None, "is no format string"),
        ("{claim} {speaker}", None, "asks for 'speaker', expected plain fields out of claim, evidence"),
        ("{claim!r}", None, "asks for 'claim', expected plain fields"),
        ("{claim} {claim}", None, "expected at least one and each once"),
        ("nothing", None, "expected at least one and each once"),
        ("{claim}", "evidence", "data.cut='evidence' is no column of the template"),
    ],
)
def test_bad_templates_are_refused(template: str, cut: str | None, message: str):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        parse_template(template, COLUMNS, cut)


@given(claim=TEXT, evidence=TEXT, max_length=st.integers(1, 80), bos=st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncation(tokenizer: Any, claim: str, evidence: str, max_length: int, bos: bool):
    text, span, result = encode_one(tokenizer, {"claim": claim, "evidence": evidence}, max_length, bos)
    plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    whole = [tokenizer.bos_token_id] * bos + plain["input_ids"]
    # what the claim and the fixed words need: every token not wholly inside the evidence
    around = [
        i for i, (a, b) in zip(plain["input_ids"], plain["offset_mapping"], strict=True) if a < span[0] or b > span[1]
    ]
    prefix = [tokenizer.bos_token_id] * bos + around

    assert len(result.input_ids) == min(len(whole), max_length)
    assert result.cut == (len(whole) > max_length)
    if not result.cut:
        assert result.input_ids == whole
    elif result.cut_prompt:
        assert len(prefix) > max_length
        assert result.input_ids == prefix[:max_length]
    else:
        before = sum(b <= span[0] or a < span[0] for a, b in plain["offset_mapping"]) + bos
        assert result.input_ids[:before] == whole[:before]  # the claim, whole
        after = len(prefix) - before
        assert after == 0 or result.input_ids[-after:] == whole[-after:]  # the answer prompt, whole
        assert is_subsequence_cut(result.input_ids, whole)


def test_evidence_loses_its_end(tokenizer: Any):
    row = {"claim": "Ada Adler won the chess prize.", "evidence": "one two three four five six"}
    _, _, result = encode_one(tokenizer, row, 19)
    kept = tokenizer.decode(result.input_ids)
    assert "Ada Adler won the chess prize." in kept
    assert "one two" in kept
    assert "six" not in kept
    assert kept.endswith("Answer :")
    assert (result.cut, result.cut_prompt) == (True, False)


def test_without_a_cuttable_column_the_text_loses_its_end(tokenizer: Any):
    row = {"claim": "Ada won.", "evidence": "one two three"}
    text, _, result = encode_one(tokenizer, row, 8, bos=False, cut=None)
    assert result.input_ids == tokenizer(text, add_special_tokens=False)["input_ids"][:8]


@pytest.mark.parametrize("name", SHARED_TOKENIZERS)
def test_real_tokenizers(shared_data: Path, name: str):
    path = shared_data / name
    tokenizer: Any
    if path.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(path)
    else:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    row = {"claim": "Héctor says “yes” 😀.", "evidence": "(0)Is it so? No\u2028line (1)naïve 日本 " * 9}
    text, _, whole = encode_one(tokenizer, row, 10_000)
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    assert whole.input_ids == start + tokenizer(text, add_special_tokens=False)["input_ids"]
    _, _, result = encode_one(tokenizer, row, 60)
    assert len(result.input_ids) == 60
    assert not result.cut_prompt
    decoded = tokenizer.decode(result.input_ids)
    assert "Héctor says “yes” 😀." in decoded
    assert decoded.endswith("Answer :")


def test_slow_tokenizers_are_refused():
    with pytest.raises(UserError, match="gives no character offsets, expected a fast tokenizer"):
        encode(object(), ["a"], [(0, 1)], InputForm(SpecialTokens(), 8))


def wordwise(**special: str) -> PreTrainedTokenizerFast:
    """Whole words as tokens, all others as one that stands for what is not known."""
    words = {word: number for number, word in enumerate(("<pad>", "[UNK]", "[CLS]", "[SEP]", "the", "river"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", cls_token="[CLS]", **special)


def test_unknown_words_and_written_special_tokens_are_counted_and_said() -> None:
    tokenizer = wordwise(unk_token="[UNK]", sep_token="[SEP]")
    form = InputForm(SpecialTokens((2,), (3,)), 20, padding=0)
    texts = ["the river", "the Rhein", "das Tal", "the [SEP] river", "[CLS] the river", "the river <pad>"]
    encode(tokenizer, texts, [(0, 0)] * len(texts), form)
    form.counts["texts"] = len(texts)
    assert {name: form.counts[name] for name in ("unknown", "unknown_tokens", "special_inside", "tokens")} == {
        "unknown": 2, "unknown_tokens": 3, "special_inside": 1, "tokens": 15,
    }  # fmt: skip
    lines = notes_of(form, "{text}", None, None, tokenizer, False)
    assert "form: 1 of 6 texts hold special tokens written out: the model reads them as such" in lines
    assert (
        "form: 2 of 6 texts hold words that the tokenizer has no token for: it reads [UNK], 0.2 of all tokens" in lines
    )


def test_a_token_that_only_ends_texts_stands_for_nothing_unknown() -> None:
    """GPT-2 names its end of a text as its unknown token, which no word ever becomes."""
    tokenizer = wordwise(unk_token="[SEP]", eos_token="[SEP]")
    form = InputForm(SpecialTokens(), 20)
    encode(tokenizer, ["the [SEP] river"], [(0, 0)], form)
    assert (form.counts["unknown"], form.counts["special_inside"]) == (0, 1)
