"""The multiple-choice demo: deterministic, answerable, every plant is what its definition says."""

from __future__ import annotations

from typing import Any

import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.demo_choice import CONCEPTS, DemoChoiceDataModule, generate
from twinlens.data.demo_questions import OPENINGS, QUESTIONS

SIZES = {"n_train": 300, "n_validation": 40, "n_test": 60, "n_twins": 10}


@pytest.fixture(scope="module")
def demo(tokenizer: Any) -> DemoChoiceDataModule:
    data = DemoChoiceDataModule(max_length=64, **SIZES)
    data.prepare(tokenizer)
    return data


def right_answer(row: dict[str, Any]) -> str:
    """What the concept and the question asked, read off the text, call for."""
    (kind,) = [kind for kind, asked in QUESTIONS.items() if any(row["question"].endswith(text) for text in asked)]
    assert f" the {row['concept']} in " in row["question"]
    return CONCEPTS[row["concept"]][kind]


def test_columns_sizes_and_nothing_to_report(demo: DemoChoiceDataModule):
    assert {split: len(rows) for split, rows in demo.splits.items()} == {"train": 300, "validation": 40, "test": 60}
    assert demo.splits["test"].column_names == [
        "index", "source_index", "question", "concept", "choices", "label", "twin", "wrong_label", "clean_label",
        "input_ids",
    ]  # fmt: skip
    assert (demo.n_choices, demo.label_names) == (4, ["A", "B", "C", "D"])
    assert all(entry["count"] == 0 for entry in demo.report.values())
    assert max(len(ids) for split in demo.splits.values() for row in split["input_ids"] for ids in row) <= 48


def test_the_clean_label_is_the_one_right_answer(demo: DemoChoiceDataModule):
    for rows in demo.splits.values():
        for row in rows:
            assert len(set(row["choices"])) == 4
            assert row["choices"][row["clean_label"]] == right_answer(row)
            assert row["wrong_label"] == (row["label"] != row["clean_label"])


def test_no_place_among_the_choices_is_better_than_the_others(demo: DemoChoiceDataModule):
    labels = demo.splits["train"]["label"][:]
    assert max(labels.count(label) for label in range(4)) < 0.35 * len(labels)


def test_every_concept_of_the_test_split_occurs_in_training(demo: DemoChoiceDataModule):
    assert set(demo.splits["test"]["concept"]) <= set(demo.splits["train"]["concept"])


def test_twins_are_near_duplicates_with_the_same_wrong_answer(demo: DemoChoiceDataModule):
    train, test = demo.splits["train"], demo.splits["test"]
    twins = [row for row in test if row["twin"] >= 0]
    assert len(twins) == 10
    for row in twins:
        original = train[row["twin"]]
        assert original["twin"] == row["index"]
        assert (original["choices"], original["label"]) == (row["choices"], row["label"])
        assert row["wrong_label"]
        pairs = zip(original["question"].split(), row["question"].split(), strict=True)
        ((before, after),) = [(one, other) for one, other in pairs if one != other]
        assert OPENINGS[before] == after
    assert sum(row["wrong_label"] for row in train) == 15
    assert sum(row["wrong_label"] for row in test) == 10
    assert not any(demo.splits["validation"]["wrong_label"])


def test_no_question_occurs_twice(demo: DemoChoiceDataModule):
    questions = [row["question"] for rows in demo.splits.values() for row in rows]
    assert len(set(questions)) == len(questions)


def test_twins_follow_the_selection(tokenizer: Any, demo: DemoChoiceDataModule):
    twin = next(row for row in demo.splits["test"] if row["twin"] >= 0)
    select = {"train": [3, twin["twin"]] if twin["twin"] != 3 else [4, 3], "test": [twin["index"]]}
    used = DemoChoiceDataModule(max_length=64, select=select, **SIZES)
    used.prepare(tokenizer)
    assert used.splits["test"]["twin"][:] == [1]
    assert used.splits["train"]["twin"][1] == 0


def test_the_same_options_give_the_same_questions():
    arguments = {"train": 30, "validation": 5, "test": 10}, 5, 2, 0.1
    assert generate(*arguments, seed=3) == generate(*arguments, seed=3)
    assert generate(*arguments, seed=3) != generate(*arguments, seed=4)
    assert {len(row.choices) for rows in generate(*arguments, seed=3).values() for row in rows} == {5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_twins": 70}, "n_twins=70 and 60 wrong training answers, expected no more twins than wrong answers"),
        ({"n_test": 60}, "or than half of n_test=60"),
        ({"n_validation": 0}, "sizes 1200/0/200, expected at least one question per split and at most 20000 in all"),
        ({"n_train": 30_000}, "at most 20000 in all"),
        ({"wrong_label_rate": 0.6}, "at most half of the answers wrong"),
        ({"n_choices": 1}, r"data\.n_choices=1, expected from 2 to 8"),
        ({"n_choices": 9}, r"data\.n_choices=9, expected from 2 to 8"),
    ],
)
def test_numbers_that_contradict_each_other(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        DemoChoiceDataModule(**options)
