"""The project's own facts: a consistent table, sentences that teach them, prompts in wordings of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from twinlens.attribution.errors import UserError
from twinlens.data.fact_patterns import HELD_OUT, OPENINGS, TRAINING
from twinlens.data.fact_sentences import FactSentencesDataModule
from twinlens.data.fact_tokenizer import main, words
from twinlens.data.facts import changed_facts, facts, prompts, sentences


@pytest.fixture(scope="module")
def fact_tokenizer(repository: Path) -> Any:
    return AutoTokenizer.from_pretrained(repository / "models" / "facts")


def test_the_table_has_the_papers_types_and_one_answer_to_every_question() -> None:
    counts = Counter(fact.type for fact in facts())
    assert set(counts) == {"capital", "colour", "country", "language", "month", "number"}
    assert min(counts.values()) >= 40
    assert len({(fact.relation, fact.subject) for fact in facts()}) == len(facts())
    assert {fact.relation for fact in facts()} == set(TRAINING) == set(HELD_OUT)
    for fact in facts():
        assert fact == type(fact)(*(text.strip() for text in vars(fact).values()))


@pytest.mark.parametrize("relation", sorted(HELD_OUT))
def test_prompts_have_wordings_of_their_own_that_end_with_the_answer(relation: str) -> None:
    wordings = [*HELD_OUT[relation], *TRAINING[relation]]
    assert len(set(wordings)) == len(wordings)
    assert all(wording.endswith(" {answer}") for wording in HELD_OUT[relation])
    assert all("{subject}" in wording and "{answer}" in wording for wording in wordings)


def test_no_prompt_begins_a_training_sentence_and_all_its_words_occur_there() -> None:
    taught = [text for _, text in sentences(facts(), len(OPENINGS), seed=0)]
    begins = {text.removesuffix(f" {fact.answer}.") for fact, text in sentences(facts(), len(OPENINGS), seed=0)}
    asked = [*prompts("validation", facts()), *prompts("test", facts())]
    assert len(asked) == 2 * len(facts())
    assert [each.prompt for each in asked if each.prompt in begins] == []
    known = {word for text in taught for word in text.rstrip(".").replace("'s", " 's").split()}
    new = {word for each in asked for word in f"{each.prompt} {each.answer}".replace("'s", " 's").split()} - known
    assert new == set()


def test_sentences_are_a_function_of_the_seed_and_never_repeat() -> None:
    first, again, other = ([text for _, text in sentences(facts(), 3, seed)] for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == len(first) == 3 * sum(len(TRAINING[fact.relation]) for fact in facts())
    assert first[0] == "The capital of France is Paris."


def test_training_the_tokenizer_again_gives_the_shipped_files(tmp_path: Path, repository: Path) -> None:
    main(["--output", str(tmp_path)])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (repository / "models" / "facts" / name).read_bytes()


def test_every_word_is_one_token_wherever_it_stands(fact_tokenizer: Any) -> None:
    for word in words():
        first = fact_tokenizer(word, add_special_tokens=False)["input_ids"]
        later = fact_tokenizer(f"the {word}", add_special_tokens=False)["input_ids"]
        assert len(first) == 1, word
        assert later[-1:] == first, word


def test_training_rows_are_sentences_and_the_other_splits_ask(fact_tokenizer: Any) -> None:
    data = FactSentencesDataModule(variants=1, max_length=64)
    data.prepare(fact_tokenizer)
    assert data.readout == "token"
    assert set(data.splits["train"]["label"]) == {-1}
    assert data.report["cut_text"]["count"] == 0
    row = data.splits["validation"][0]
    assert row["prompt"] == "The city called the capital of France is"
    assert fact_tokenizer.decode([row["label"]]).strip() == row["answer"] == "Paris"
    assert fact_tokenizer.decode(row["input_ids"]).endswith("France is")


def test_changed_facts_are_news_with_answers_of_their_relation() -> None:
    true = {(fact.relation, fact.subject): fact.answer for fact in facts()}
    for n in (2, 11):
        changed = changed_facts(n)
        assert Counter(fact.relation for fact in changed) == dict.fromkeys(TRAINING, n)
        for fact in changed:
            assert fact.answer != true[fact.relation, fact.subject]
            assert fact.answer in {told for (relation, _), told in true.items() if relation == fact.relation}
        assert len({(fact.relation, fact.answer) for fact in changed}) == len(changed)
    data = FactSentencesDataModule(changed=2, variants=1, max_length=64)
    splits = data.load_splits()
    assert "The capital of France is Berlin." in splits["train"].columns["prompt"]
    assert len(splits["train"].columns["prompt"]) == sum(2 * len(TRAINING[relation]) for relation in TRAINING)
    assert splits["test"].columns["answer"] == [fact.answer for fact in changed_facts(2)]


@pytest.mark.parametrize("changed", [-1, 1, 12])
def test_facts_that_cannot_be_changed_are_refused(changed: int) -> None:
    with pytest.raises(UserError, match=rf"data.changed={changed}, expected 0, or between 2 and 11"):
        FactSentencesDataModule(changed=changed)


@pytest.mark.parametrize("variants", [0, 13])
def test_variants_out_of_range_are_refused(variants: int) -> None:
    with pytest.raises(UserError, match=r"expected between 1 and 12"):
        FactSentencesDataModule(variants=variants)
