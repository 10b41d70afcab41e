"""The demo's challenge: the demo's training rows, and a test split on which word overlap misleads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.word_overlap import word_overlap
from twinlens.attribution.errors import UserError
from twinlens.data.demo import DemoDataModule
from twinlens.data.demo_challenge import SUPPORTED_SUBCASE, UNSUPPORTED, DemoChallengeDataModule, challenge_rows
from twinlens.data.demo_sentences import LABELS
from twinlens.data.labels import Fold

SIZES = {"n_train": 60, "n_validation": 10, "n_test": 20, "n_twins": 2}


def prepared(module: type[DemoDataModule], tokenizer: Any, **options: Any) -> DemoDataModule:
    data = module(max_length=64, **{**SIZES, **options})
    data.prepare(tokenizer)
    return data


@pytest.fixture(scope="module")
def challenge(tokenizer: Any) -> DemoDataModule:
    return prepared(DemoChallengeDataModule, tokenizer)


def test_one_fit_serves_the_demo_and_its_challenge(tokenizer: Any, challenge: DemoDataModule):
    demo = prepared(DemoDataModule, tokenizer)
    for split in ("train", "validation"):
        assert challenge.fingerprint(split) == demo.fingerprint(split)
    assert challenge.fingerprint("test") != demo.fingerprint("test")
    assert prepared(DemoChallengeDataModule, tokenizer, n_challenge=7).fingerprint("train") == demo.fingerprint("train")


def test_columns_names_and_fold(challenge: DemoDataModule):
    assert challenge.name == "demo/challenge"
    assert challenge.label_names == LABELS
    assert challenge.folds == {"test": Fold(("supported", "not supported"), (0, 1, 1))}
    assert challenge.pair_columns == ("evidence", "claim")
    common = ["index", "source_index", "claim", "evidence", "label"]
    assert challenge.splits["test"].column_names == [*common, "heuristic", "subcase", "input_ids"]
    plants = ["shortcut", "wrong_label", "clean_label"]
    assert challenge.splits["train"].column_names == [*common, *plants, "input_ids"]
    assert "twin" not in challenge.plant_columns
    assert all(entry["count"] == 0 for entry in challenge.report.values())


def test_every_claim_stands_wholly_in_its_evidence(challenge: DemoDataModule):
    rows = challenge.splits["test"]
    assert len(rows) == 200
    assert {word_overlap(row["claim"], row["evidence"]) for row in rows} == {1.0}
    assert len(set(rows["claim"])) == len(rows)


def test_half_of_the_labels_are_not_what_the_overlap_suggests(challenge: DemoDataModule):
    rows = challenge.splits["test"]
    subcases = rows["subcase"][:]
    assert rows["label"][:] == [int(subcase != SUPPORTED_SUBCASE) for subcase in subcases]
    assert sum(rows["label"]) == 100
    assert {subcase: subcases.count(subcase) for subcase in UNSUPPORTED} == dict.fromkeys(UNSUPPORTED, 25)
    assert set(rows["heuristic"]) == {"lexical_overlap"}


def test_shares_and_seeds():
    assert sum(challenge_rows(10, 0.0, 0).labels) == 10
    assert sum(challenge_rows(10, 1.0, 0).labels) == 0
    assert challenge_rows(10, 0.5, 0) == challenge_rows(10, 0.5, 0)
    assert challenge_rows(10, 0.5, 0) != challenge_rows(10, 0.5, 1)


@pytest.mark.parametrize("options", [{"n_challenge": 0}, {"supported_share": 1.5}, {"supported_share": -0.1}])
def test_numbers_out_of_range(options: dict[str, Any]):
    with pytest.raises(UserError, match="expected at least one pair and a share from 0 to 1"):
        DemoChallengeDataModule(**options)
