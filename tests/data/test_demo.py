"""The demo: deterministic, every plant is what its definition says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.word_overlap import word_overlap, words
from twinlens.attribution.errors import UserError
from twinlens.data.demo import SHORTCUT_OVERLAP, DemoDataModule, generate
from twinlens.data.demo_sentences import DEEDS, REPEATING, REPHRASING

SYNONYMS = {verb: synonym for verb, (synonym, _) in DEEDS.items()}


@pytest.fixture(scope="module")
def demo(tokenizer: Any) -> DemoDataModule:
    data = DemoDataModule(max_length=64)
    data.prepare(tokenizer)
    return data


def verdict(evidence: str) -> set[str]:
    """The labels one of whose patterns the evidence fits, read off its fixed words."""
    fields = {"source", "first", "last", "verb", "object", "place", "year", "witness", "other"}
    found = set()
    for patterns in (REPEATING, REPHRASING):
        for label, variants in patterns.items():
            if any(words(pattern) - fields <= words(evidence) for pattern in variants):
                found.add(label)
    return found


def test_sizes_columns_and_nothing_to_report(demo: DemoDataModule):
    assert {split: len(rows) for split, rows in demo.splits.items()} == {"train": 1200, "validation": 200, "test": 200}
    assert demo.splits["test"].column_names == [
        "index", "source_index", "claim", "evidence", "label", "twin", "shortcut", "wrong_label", "clean_label",
        "input_ids",
    ]  # fmt: skip
    assert all(entry["count"] == 0 for entry in demo.report.values())
    assert max(len(ids) for rows in demo.splits.values() for ids in rows["input_ids"]) <= 50


def test_classes_are_balanced(demo: DemoDataModule):
    for rows in demo.splits.values():
        counts = [rows["clean_label"][:].count(label) for label in range(3)]
        assert max(counts) < 0.4 * len(rows)


def test_the_clean_label_is_what_the_evidence_says(demo: DemoDataModule):
    for rows in demo.splits.values():
        for row in rows:
            assert verdict(row["evidence"]) == {demo.label_names[row["clean_label"]]}, row["evidence"]


def test_twins_are_near_duplicates_with_the_same_wrong_label(demo: DemoDataModule):
    train, test = demo.splits["train"], demo.splits["test"]
    twins = [row for row in test if row["twin"] >= 0]
    assert len(twins) == 40
    assert len({row["twin"] for row in twins}) == 40
    for row in twins:
        original = train[row["twin"]]
        assert original["twin"] == row["index"]
        assert original["evidence"] == row["evidence"]
        pairs = zip(original["claim"].split(), row["claim"].split(), strict=True)
        changed = [(before, after) for before, after in pairs if before != after]
        assert len(changed) == 1
        assert SYNONYMS[changed[0][0]] == changed[0][1]
        assert original["label"] == row["label"] != row["clean_label"] == original["clean_label"]
    assert sum(twin >= 0 for twin in train["twin"]) == 40
    assert set(demo.splits["validation"]["twin"]) == {-1}


def test_no_other_claim_occurs_twice(demo: DemoDataModule):
    claims = [row["claim"] for rows in demo.splits.values() for row in rows]
    assert len(set(claims)) == len(claims)


def test_shortcuts_repeat_the_claim_and_nothing_else_unsupported_does(demo: DemoDataModule):
    for split, expected in (("train", 12), ("validation", 2), ("test", 30)):
        rows = demo.splits[split]
        assert sum(rows["shortcut"]) == expected
        for row in rows:
            if row["twin"] >= 0 and split == "test":
                continue  # its verb was replaced
            overlap = word_overlap(row["claim"], row["evidence"])
            supported = demo.label_names[row["clean_label"]] == "supported"
            assert row["shortcut"] == (overlap >= SHORTCUT_OVERLAP and not supported)
            assert overlap >= SHORTCUT_OVERLAP or overlap < 0.5


def test_overlap_predicts_supported_in_training(demo: DemoDataModule):
    rows = demo.splits["train"]
    high = [row["clean_label"] == 0 for row in rows if word_overlap(row["claim"], row["evidence"]) >= SHORTCUT_OVERLAP]
    assert len(high) > 300
    assert sum(high) / len(high) > 0.95


def test_wrong_labels(demo: DemoDataModule):
    for split, expected in (("train", 60), ("validation", 0), ("test", 40)):
        rows = demo.splits[split]
        assert rows["wrong_label"][:] == [row["label"] != row["clean_label"] for row in rows]
        assert sum(rows["wrong_label"]) == expected


def test_twins_follow_limit_and_selection(tokenizer: Any, demo: DemoDataModule):
    twin = next(row for row in demo.splits["test"] if row["twin"] >= 0)
    used = DemoDataModule(
        max_length=64, select={"train": [3, twin["twin"]], "test": [twin["index"], 5, 4]}, limit={"validation": 4}
    )
    used.prepare(tokenizer)
    assert used.splits["test"][0]["twin"] == 1
    assert used.splits["train"][1]["twin"] == 0
    assert used.splits["train"][1]["source_index"] == twin["twin"]
    other = 3 if twin["twin"] != 3 else 4
    without = DemoDataModule(max_length=64, select={"test": [twin["index"]], "train": [other]})
    without.prepare(tokenizer)
    assert without.splits["test"]["twin"][:] == [-1]


def test_the_same_options_give_the_same_rows():
    arguments = (60, 6, 30, 4, 0.1, {"train": 0.1, "test": 0.2})
    assert generate(*arguments, seed=3) == generate(*arguments, seed=3)
    assert generate(*arguments, seed=3) != generate(*arguments, seed=4)


def test_the_training_seed_changes_no_row(tokenizer: Any, demo: DemoDataModule):
    other = DemoDataModule(max_length=64, seed=5)
    other.prepare(tokenizer)
    assert other.fingerprint("train") == demo.fingerprint("train")
    moved = DemoDataModule(max_length=64, split_seed=1)
    moved.prepare(tokenizer)
    assert moved.fingerprint("train") != demo.fingerprint("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_twins": 70}, "n_twins=70 and 60 wrong training labels, expected no more twins than wrong"),
        ({"n_test": 60}, "or than half of n_test=60"),
        ({"n_validation": 0}, r"sizes 1200/0/200, expected at least 3 rows per split"),
        ({"wrong_label_rate": 0.6}, "at most half of the labels wrong"),
        ({"shortcut_rate": {"dev": 0.1}}, r"data\.shortcut_rate\.dev names no split"),
        ({"shortcut_rate": {"test": 0.9}}, r"data\.shortcut_rate\.test=0\.9, expected between 0 and 0\.3"),
    ],
)
def test_numbers_that_contradict_each_other(tokenizer: Any, options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        DemoDataModule(**options).prepare(tokenizer)
