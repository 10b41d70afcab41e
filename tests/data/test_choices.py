"""Multiple choice in what all data modules share: columns, nested ids, batches, padding, order, report, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import choice_names
from twinlens.data.collate import PaddingCollator
from twinlens.data.labels import Fold, label_numbers
from twinlens.data.sampling import length_sorted_batches, token_lengths
from twinlens.data.text_data_module import SourceRows, TextDataModule

QUESTIONS = [
    ("Where is it?", ["here", "there and everywhere and back"], "A"),
    ("Who came to the house on the hill, and who left it?", ["she", "he"], "B"),
    ("What?", ["a", "b"], "B"),
    ("Where is it?", ["here", "there and everywhere and back"], "A"),
    ("When did the old clock stop?", ["", "never"], "A"),
]


class Choices(TextDataModule):
    """Written questions, the same in every split."""

    def __init__(self, questions: list[tuple[str, list[str], str]] = QUESTIONS, **options: Any) -> None:
        super().__init__("choices", **options)
        self.n_choices = 2
        self.label_names = choice_names(2)
        self.text_columns = ["question"]
        self.questions = questions

    def templates(self) -> dict[str, str]:
        return {"reference": "Q : {question}/ C : {choice}/ A :"}

    def load_splits(self) -> dict[str, SourceRows]:
        rows = list(range(len(self.questions)))
        labels = label_numbers("questions", rows, [answer for _, _, answer in self.questions], self.label_names)
        texts = {"question": [question for question, _, _ in self.questions]}
        return {
            split: SourceRows(rows, dict(texts), labels, [choices for _, choices, _ in self.questions])
            for split in ("train", "validation", "test")
        }


def prepared(tokenizer: Any, **options: Any) -> Choices:
    data = Choices(**options)
    data.prepare(tokenizer)
    return data


def test_columns_and_one_sequence_per_choice(tokenizer: Any):
    data = prepared(tokenizer)
    rows = data.splits["test"]
    assert rows.column_names == ["index", "source_index", "question", "choices", "label", "input_ids"]
    assert data.label_names == ["A", "B"]
    assert (rows[1]["choices"], rows[1]["label"]) == (["she", "he"], 1)
    prompts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows[1]["input_ids"]]
    asked = "Q : Who came to the house on the hill, and who left it?"
    assert prompts == [f"{asked}/ C : she/ A :", f"{asked}/ C : he/ A :"]


def test_the_question_is_cut_and_never_a_choice(tokenizer: Any):
    data = prepared(tokenizer, max_length=24)
    texts = [tokenizer.decode(ids) for row in data.splits["train"] for ids in row["input_ids"]]
    assert max(len(ids) for row in data.splits["train"] for ids in row["input_ids"]) == 24
    for (_, choices, _), pair in zip(QUESTIONS, zip(texts[::2], texts[1::2], strict=True), strict=True):
        for choice, text in zip(choices, pair, strict=True):
            assert text.endswith(f"/ C : {choice}/ A :")
    assert data.report["cut_text"]["count"] >= 3  # a question counts once per split, whichever sequence was cut
    assert data.report["cut_text"]["indices"]["train"] == data.report["cut_text"]["indices"]["test"]


def test_the_report_counts_questions(tokenizer: Any):
    report = prepared(tokenizer).report
    assert report["empty_field"] == {"count": 3, "indices": {"train": [4], "validation": [4], "test": [4]}}
    assert report["duplicate_text"]["indices"]["train"] == [3]
    assert report["duplicate_text"]["count"] == 1 + 2 * len(QUESTIONS)


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_have_a_dimension_of_choices(tokenizer: Any, side: str):
    data = prepared(tokenizer, batch_size=2, padding_side=side)
    rows = data.splits["train"]
    for batch in data.train_dataloader():
        n, longest = len(batch["index"]), max(token_lengths(rows)[int(row)] for row in batch["index"])
        assert {name: tuple(values.shape) for name, values in batch.items()} == {
            "index": (n,), "input_ids": (n, 2, longest), "attention_mask": (n, 2, longest), "labels": (n,),
        }  # fmt: skip
        for index, sequences, masks in zip(batch["index"], batch["input_ids"], batch["attention_mask"], strict=True):
            for ids, row_ids, mask in zip(rows[int(index)]["input_ids"], sequences, masks, strict=True):
                assert row_ids[mask.bool()].tolist() == ids
                padded = mask == 0
                assert padded.tolist() == sorted(padded.tolist(), reverse=side == "left")


@pytest.mark.parametrize("side", ["right", "left"])
def test_collate_of_nested_rows_by_hand(side: str):
    rows = [
        {"index": 4, "label": 1, "input_ids": [[5, 6, 7], [8]]},
        {"index": 1, "label": 0, "input_ids": [[9], [3, 2]]},
    ]
    batch = PaddingCollator(0, side)(rows)
    right = [[[5, 6, 7], [8, 0, 0]], [[9, 0, 0], [3, 2, 0]]]
    left = [[[5, 6, 7], [0, 0, 8]], [[0, 0, 9], [0, 3, 2]]]
    assert batch["input_ids"].tolist() == (right if side == "right" else left)
    assert torch.equal(batch["attention_mask"], (batch["input_ids"] != 0).long())
    assert {values.dtype for values in batch.values()} == {torch.int64}


def test_the_longest_sequence_of_a_question_counts(tokenizer: Any):
    rows = prepared(tokenizer).splits["train"]
    lengths = token_lengths(rows)
    assert lengths == [max(len(ids) for ids in question) for question in rows["input_ids"]]
    assert lengths != [len(question[0]) for question in rows["input_ids"]]
    assert token_lengths(rows.select([3, 1])) == [lengths[3], lengths[1]]
    shards = length_sorted_batches(rows, 2, 3)
    assert [sorted(row for batch in shard for row in batch) for shard in shards] == [[0, 1, 2], [3, 4]]
    for shard in shards:
        order = [lengths[row] for batch in shard for row in batch]
        assert order == sorted(order, reverse=True)


def test_the_fingerprint_sees_every_choice_and_the_fold(tokenizer: Any):
    first = prepared(tokenizer)
    assert prepared(tokenizer, batch_size=3, padding_side="left").fingerprint("test") == first.fingerprint("test")
    changed = [*QUESTIONS[:-1], (QUESTIONS[-1][0], ["", "ever"], "A")]
    assert prepared(tokenizer, questions=changed).fingerprint("test") != first.fingerprint("test")
    before = first.fingerprint("train")
    first.folds = {"test": Fold(("one", "other"), (0, 1))}
    assert first.fingerprint("train") == before
    assert first.fingerprint("test") != prepared(tokenizer).fingerprint("test")


@pytest.mark.parametrize("choices", [["only"], ["one", "two", "three"]])
def test_another_number_of_choices_is_refused(tokenizer: Any, choices: list[str]):
    odd = [*QUESTIONS, ("How many?", choices, "A")]
    told = f"Row 5 of the source of the train split of data=choices has {len(choices)} choices, expected 2"
    with pytest.raises(UserError, match=told):
        prepared(tokenizer, questions=odd)
    assert len(prepared(tokenizer, questions=odd, limit=dict.fromkeys(("train", "validation", "test"), 5)).splits) == 3


def test_a_question_without_text_is_refused(tokenizer: Any):
    with pytest.raises(UserError, match="Row 0 of the source of the train split of data=choices has no token at all"):
        prepared(tokenizer, questions=[(" ", ["", " "], "A")])


def test_a_template_may_show_the_choice_alone(tokenizer: Any):
    data = prepared(tokenizer, template="{choice} ?")
    assert tokenizer.decode(data.splits["test"][1]["input_ids"][1]) == "<bos>he ?"
    with pytest.raises(UserError, match=r"asks for 'choices', expected plain fields out of question, choice"):
        prepared(tokenizer, template="{choices}")


@pytest.mark.parametrize("of_class", [(0, 0, 0), (0, 1, 2), ()])
def test_a_fold_reaches_each_of_its_classes(of_class: tuple[int, ...]):
    with pytest.raises(ValueError, match="does not map onto"):
        Fold(("a", "b"), of_class)
