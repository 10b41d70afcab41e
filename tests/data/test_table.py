"""Tables of one's own: formats, splits, labels, unlabelled inputs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_file_readers import write
from twinlens.attribution.errors import UserError
from twinlens.data.file_readers import READERS
from twinlens.data.table import TableDataModule, reference_template

TEXT = ["premise", "hypothesis"]
ROWS = [
    {"premise": f"Premise {row}", "hypothesis": f"So {row}.", "label": ("contradiction", "neutral")[row % 2]}
    for row in range(40)
]


def prepared(tokenizer: Any, **options: Any) -> TableDataModule:
    data = TableDataModule(**{"text": TEXT, **options})
    data.prepare(tokenizer)
    return data


def without(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != column} for row in rows]


@pytest.mark.parametrize("suffix", list(READERS))
def test_one_labelled_file_is_split(tmp_path: Path, tokenizer: Any, suffix: str):
    data = prepared(tokenizer, path=str(write(tmp_path, suffix, ROWS)), validation_fraction=0.2, test_fraction=0.3)
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 20, "validation": 8, "test": 12}
    seen = []
    for rows in data.splits.values():
        assert rows["index"][:] == list(range(len(rows)))
        for row in rows:
            source = ROWS[row["source_index"]]
            assert (row["premise"], row["hypothesis"]) == (source["premise"], source["hypothesis"])
            assert data.label_names[row["label"]] == source["label"]
        seen += rows["source_index"][:]
    assert sorted(seen) == list(range(40))


def test_split_follows_split_seed_and_not_seed(tmp_path: Path, tokenizer: Any):
    path = str(write(tmp_path, ".csv", ROWS))
    rows = {
        (seed, split_seed): prepared(tokenizer, path=path, seed=seed, split_seed=split_seed).splits["test"][
            "source_index"
        ][:]
        for seed, split_seed in ((0, 0), (1, 0), (0, 1))
    }
    assert rows[0, 0] == rows[1, 0] != rows[0, 1]


def test_folder_and_mapping(tmp_path: Path, tokenizer: Any):
    train, dev = write(tmp_path, ".csv", ROWS, "train"), write(tmp_path, ".jsonl", ROWS[:3], "dev")
    test = write(tmp_path, ".tsv", ROWS[5:7], "test")
    folder = prepared(tokenizer, path=str(tmp_path))
    assert {split: len(rows) for split, rows in folder.splits.items()} == {"train": 40, "validation": 3, "test": 2}
    mapping = prepared(tokenizer, path={"train": str(train), "validation": str(dev), "test": str(test)})
    assert {s: mapping.fingerprint(s) for s in mapping.splits} == {s: folder.fingerprint(s) for s in folder.splits}
    assert list(prepared(tokenizer, path={"test": str(test), "train": None}).splits) == ["test"]


def test_numbers_as_labels_keep_their_order(tmp_path: Path, tokenizer: Any):
    rows = [{**row, "label": (10, 2, 1)[number % 3]} for number, row in enumerate(ROWS)]
    for suffix in (".parquet", ".csv"):
        data = prepared(tokenizer, path=str(write(tmp_path, suffix, rows)))
        assert data.label_names == ["1", "2", "10"]
        row = data.splits["test"][0]
        assert row["label"] == 2 - row["source_index"] % 3
    assert prepared(tokenizer, path=str(tmp_path / "rows.csv"), label_names=[10, 1, 2]).label_names == ["10", "1", "2"]


@pytest.mark.parametrize("suffix", list(READERS))
def test_unlabelled_rows_become_the_test_split(tmp_path: Path, tokenizer: Any, suffix: str):
    data = prepared(tokenizer, path=str(write(tmp_path, suffix, without(ROWS, "label"))), label=None)
    assert list(data.splits) == ["test"]
    assert data.splits["test"]["source_index"][:] == list(range(40))
    assert set(data.splits["test"]["label"]) == {-1}
    assert data.label_names == []
    (batch,) = data.predict_dataloader_for("test", [[3, 1]])
    assert batch["labels"].tolist() == [-1, -1]


def test_an_empty_label_column_is_unlabelled_too(tmp_path: Path, tokenizer: Any):
    path = str(write(tmp_path, ".csv", [{**row, "label": ""} for row in ROWS]))
    assert list(prepared(tokenizer, path=path).splits) == ["test"]


def test_the_test_split_beside_labelled_rows_may_lack_labels(tmp_path: Path, tokenizer: Any):
    write(tmp_path, ".csv", ROWS, "train")
    write(tmp_path, ".jsonl", [{**ROWS[0], "label": None}, ROWS[1]], "test")
    assert prepared(tokenizer, path=str(tmp_path)).splits["test"]["label"][:] == [-1, 1]
    write(tmp_path, ".jsonl", without(ROWS, "label"), "test")
    assert set(prepared(tokenizer, path=str(tmp_path)).splits["test"]["label"]) == {-1}


def test_training_rows_need_labels(tmp_path: Path, tokenizer: Any):
    write(tmp_path, ".csv", [*ROWS[:3], {**ROWS[3], "label": ""}], "train")
    with pytest.raises(UserError, match=r"train\.csv row 3 has an empty label, expected one of contradiction, neutral"):
        prepared(tokenizer, path=str(tmp_path))


def test_unknown_label(tmp_path: Path, tokenizer: Any):
    write(tmp_path, ".csv", ROWS, "train")
    write(tmp_path, ".csv", [ROWS[0], {**ROWS[1], "label": "Neutral"}], "test")
    with pytest.raises(UserError, match=r"test\.csv row 1 has the unknown label 'Neutral', expected one of contra"):
        prepared(tokenizer, path=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "gold"}, r"has no column gold \(it has: premise, hypothesis, label\)"),
        ({"text": ["claim", "premise"]}, r"has no column claim \(it has: premise, hypothesis, label\)"),
        ({"text": []}, r"data\.text=\[\], expected text columns"),
        ({"text": ["premise", "premise"]}, "expected text columns, each once"),
        ({"text": ["label"]}, "none called"),
        ({"validation_fraction": 0.6, "test_fraction": 0.4}, "leave rows for training: lower them"),
        ({"validation_fraction": 0.01}, "has 40 rows, of which none are left for the validation split"),
        ({"cut": "label"}, r"data\.cut='label' is no column of the template"),
        ({"path": None}, r"data=table has no data\.path"),
        ({"path": {"dev": "x.csv"}}, r"data\.path names the splits dev, expected some of train, validation, test"),
        ({"path": "nowhere.csv"}, r"nowhere\.csv does not exist"),
        ({"path": "."}, r"The folder \. has no train, validation or test file"),
    ],
)
def test_mistakes(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ".csv", ROWS)
    with pytest.raises(UserError, match=message):
        prepared(tokenizer, **{"path": "rows.csv", **options})


def test_an_empty_file_is_an_empty_split(tmp_path: Path, tokenizer: Any):
    write(tmp_path, ".csv", ROWS, "train")
    (tmp_path / "test.csv").write_text("premise,hypothesis,label\n")
    with pytest.raises(UserError, match=r"test\.csv has no row, so its split is empty"):
        prepared(tokenizer, path=str(tmp_path))


def test_a_cell_that_is_no_text(tmp_path: Path, tokenizer: Any):
    write(tmp_path, ".jsonl", [{**ROWS[0], "premise": ["a"]}], "test")
    with pytest.raises(UserError, match=r"test\.jsonl row 0 has a list in column premise, expected text"):
        prepared(tokenizer, path=str(tmp_path))


def test_the_chosen_column_is_cut(tmp_path: Path, tokenizer: Any):
    write(tmp_path, ".jsonl", [{"premise": "one " * 50, "hypothesis": "two " * 50, "label": "a"}], "test")
    last = tokenizer.decode(prepared(tokenizer, path=str(tmp_path), max_length=140).splits["test"][0]["input_ids"])
    first = prepared(tokenizer, path=str(tmp_path), max_length=140, cut="premise").splits["test"][0]["input_ids"]
    assert (last.count("one"), tokenizer.decode(first).count("two")) == (50, 50)
    assert last.endswith("Answer :")


def test_reference_template():
    assert reference_template(TEXT) == "Premise : {premise}/ Hypothesis : {hypothesis}/ Answer :"


def test_published_mnli_with_its_own_columns(tokenizer: Any, shared_data: Path):
    path = str(shared_data / "mnli" / "mnli_dev_matched_with_bert_correct_counts.tsv")
    data = prepared(tokenizer, path=path, label="gold_label", limit={"train": 50}, max_length=128)
    assert data.label_names == ["contradiction", "entailment", "neutral"]
    assert len(data.splits["validation"]) + len(data.splits["test"]) == 2 * round(0.1 * 9815)


def test_rows_without_a_label_beside_class_numbers_are_left_out(tmp_path: Path, tokenizer: Any):
    labels = [0, "1", 0.0, "0.0", -1, None, float("nan"), "", "-1", *[0, 1] * 10]
    rows = [{"premise": f"p {n}", "hypothesis": f"h {n}", "label": label} for n, label in enumerate(labels)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = prepared(tokenizer, path=str(tmp_path / "rows.jsonl"))
    assert data.label_names == ["0", "1"]
    used = {row["source_index"]: row["label"] for split in data.splits.values() for row in split}
    assert sorted(used) == [0, 1, 2, 3, *range(9, 29)]
    assert [used[row] for row in range(4)] == [0, 1, 0, 0]
    assert data.report["no_gold_label"] == {"count": 5, "indices": {"train": [4, 5, 6, 7, 8]}}
    assert "the labels 0, 0.0, '0.0' are one class, 0" in data.notes.lines
    assert "read 29 rows of rows.jsonl" in data.notes.lines
    kept = prepared(tokenizer, path=str(tmp_path / "rows.jsonl"), label_names=[-1, 0, 1])
    assert kept.report["no_gold_label"]["count"] == 3
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        (tmp_path / "set" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = prepared(tokenizer, path=str(tmp_path / "set"))
    assert folder.report["no_gold_label"] == {"count": 5, "indices": {"train": [4, 5, 6, 7, 8]}}
    assert folder.splits["test"]["label"][:][3:10] == [0, *[-1] * 5, 0]
    assert "test: 5 of 29 rows have no label" in folder.notes.lines


def test_a_test_file_of_minus_ones_is_unlabelled(tmp_path: Path, tokenizer: Any):
    path = str(write(tmp_path, ".parquet", [{**row, "label": -1} for row in ROWS]))  # type: ignore[dict-item]
    assert set(prepared(tokenizer, path=path).splits["test"]["label"]) == {-1}
    assert set(prepared(tokenizer, path=path, label_names=["no", "yes"]).splits["test"]["label"]) == {-1}


def test_nan_is_an_empty_text(tmp_path: Path, tokenizer: Any):
    rows = [{"premise": "a", "hypothesis": float("nan"), "label": "x"}]
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0]))
    data = prepared(tokenizer, path=str(tmp_path))
    assert data.splits["test"][0]["hypothesis"] == ""
    assert data.report["empty_field"]["count"] == 1


def test_a_limit_bounds_what_is_read(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    for split in ("train", "validation", "test"):
        write(tmp_path, ".jsonl", ROWS, split)
    whole = prepared(tokenizer, path=str(tmp_path))
    monkeypatch.setattr("twinlens.data.file_readers.MOST_ROWS", 30)
    with pytest.raises(UserError, match=r"train\.jsonl has more than 30 rows.* set data\.limit"):
        prepared(tokenizer, path=str(tmp_path))
    limit = {"train": 1, "validation": 1, "test": 3}
    limited = prepared(tokenizer, path=str(tmp_path), limit=limit)
    assert {split: len(rows) for split, rows in limited.splits.items()} == limit
    assert limited.label_names == whole.label_names  # of further rows, which are looked at and not kept
    assert "read the first 3 rows of test.jsonl" in limited.notes.lines
    selected = prepared(tokenizer, path=str(tmp_path), limit=limit, select={"test": [7, 2]})
    assert selected.splits["test"]["source_index"][:] == [7, 2]
    monkeypatch.setattr("twinlens.data.table.MOST_DIVIDED", 20)
    with pytest.raises(UserError, match=r"test\.jsonl has more than 30 rows"):
        prepared(tokenizer, path=str(tmp_path / "test.jsonl"), limit={"train": 1})
    single = prepared(tokenizer, path=str(tmp_path / "test.jsonl"), limit={"train": 9, "validation": 1, "test": 1})
    assert max(single.splits["train"]["source_index"]) < 20
    assert "read the first 20 rows of test.jsonl" in single.notes.lines


def test_labels_that_are_none_are_named_with_their_row(tmp_path: Path, tokenizer: Any):
    for label, message in [("²", "whose digits"), ([1], "of the type list"), ("x" * 600, "a label of 600 characters")]:
        write(tmp_path, ".jsonl", [ROWS[0], {**ROWS[1], "label": label}, *ROWS], "rows")
        with pytest.raises(UserError, match=rf"rows\.jsonl row 1 has .*{message}"):
            prepared(tokenizer, path=str(tmp_path / "rows.jsonl"))


def test_listed_classes_are_taken_as_they_are(tmp_path: Path, tokenizer: Any):
    """Each row its own label, and two writings of one: refused where they are found, taken where they are listed."""
    write(tmp_path, ".csv", [{**row, "label": ("Yes", "yes")[number % 2]} for number, row in enumerate(ROWS)])
    with pytest.raises(UserError, match=r"label of .*rows\.csv holds the labels 'Yes' and 'yes', which differ"):
        prepared(tokenizer, path=str(tmp_path / "rows.csv"))
    assert prepared(tokenizer, path=str(tmp_path / "rows.csv"), label_names=["yes", "Yes"]).label_names == [
        "yes",
        "Yes",
    ]


def test_rows_that_are_only_looked_at_count_for_their_classes(tmp_path: Path, tokenizer: Any):
    """Twenty-four classes of four rows each, of which a limit uses ten rows."""
    many = [{**ROWS[0], "label": f"topic {number % 24}"} for number in range(96)]
    write(tmp_path, ".csv", many, "train")
    write(tmp_path, ".csv", many, "test")
    data = prepared(tokenizer, path=str(tmp_path), limit={"train": 10, "test": 10})
    assert len(data.label_names) == 24


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (gzip.compress(b"premise,label", mtime=0), r"is packed with gzip, .*: add \.gz to its name"),
        (b"PK\x03\x04\xff\xff", r"is a zip archive, as Excel files are, .*: unpack it, or save the table as CSV"),
        (b"PAR1\xff\xff", r"is a Parquet file, .*: call it \.parquet"),
    ],
    ids=["gzip", "zip", "parquet"],
)
def test_files_of_another_kind_are_known_by_their_first_bytes(
    tmp_path: Path, tokenizer: Any, start: bytes, message: str
):
    (tmp_path / "rows.csv").write_bytes(start)
    with pytest.raises(UserError, match=message):
        prepared(tokenizer, path=str(tmp_path / "rows.csv"))


@pytest.mark.parametrize(("sign", "word"), [(";", "semicolons"), ("|", "bars"), ("\t", "tabs")])
def test_another_sign_between_cells_is_named(tmp_path: Path, tokenizer: Any, sign: str, word: str):
    (tmp_path / "rows.csv").write_text("".join(f"{sign.join(row)}\n" for row in (ROWS[0], ROWS[0].values())))
    with pytest.raises(UserError, match=f"cells are divided by {word}"):
        prepared(tokenizer, path=str(tmp_path / "rows.csv"))
