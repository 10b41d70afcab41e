"""CommonsenseQA: both schemas, the published split, questions of another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.cosqa import CosqaDataModule
from twinlens.data.sampling import token_lengths

LETTERS = "ABCDE"


def example(row: int, **changes: Any) -> dict[str, Any]:
    choices = [{"label": letter, "text": f"place {row} {letter.lower()}"} for letter in LETTERS]
    question = {"stem": f"Where is thing {row}?", "question_concept": f"thing {row % 3}", "choices": choices}
    return {"answerKey": LETTERS[row % 5], "id": str(row), "question": {**question, **changes}}


def of_the_hub(row: dict[str, Any]) -> dict[str, Any]:
    question = row["question"]
    choices = {key: [choice[key] for choice in question["choices"]] for key in ("label", "text")}
    return {
        "id": row["id"],
        "question": question["stem"],
        "question_concept": question["question_concept"],
        "choices": choices,
        "answerKey": row["answerKey"],
    }


def write(folder: Path, train: list[dict[str, Any]], dev: list[dict[str, Any]]) -> str:
    for name, rows in (("train", train), ("dev", dev)):
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}_rand_split.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def prepared(tokenizer: Any, path: str | None, **options: Any) -> CosqaDataModule:
    module = CosqaDataModule(path=path, **{"validation_size": 3, **options})
    module.prepare(tokenizer)
    return module


def test_prompts_and_splits(tmp_path: Path, tokenizer: Any):
    path = write(tmp_path, [example(row) for row in range(10)], [example(row) for row in range(4)])
    module = prepared(tokenizer, path)
    assert {split: len(rows) for split, rows in module.splits.items()} == {"train": 7, "validation": 3, "test": 4}
    assert (module.n_choices, module.label_names, module.pair_columns) == (5, list(LETTERS), None)
    row = module.splits["test"][2]
    assert list(row) == ["index", "source_index", "question", "concept", "choices", "label", "input_ids"]
    assert (row["concept"], row["label"], row["choices"][2]) == ("thing 2", 2, "place 2 c")
    assert [tokenizer.decode(ids) for ids in row["input_ids"]] == [
        f"<bos>Question : Where is thing 2?/ Choices : place 2 {letter}/ Answer :" for letter in "abcde"
    ]
    used = [*module.splits["train"]["source_index"], *module.splits["validation"]["source_index"]]
    assert sorted(used) == list(range(10))
    other = prepared(tokenizer, path, template="{concept}: {question} {choice}?")
    assert tokenizer.decode(other.splits["test"][0]["input_ids"][0]) == "<bos>thing 0: Where is thing 0? place 0 a?"


def test_choices_are_in_the_order_of_their_letters(tmp_path: Path, tokenizer: Any):
    shuffled = example(0)
    shuffled["question"]["choices"].reverse()
    path = write(tmp_path, [example(row) for row in range(5)], [shuffled, example(0)])
    test = prepared(tokenizer, path).splits["test"]
    assert test["choices"][0] == test["choices"][1]


def test_without_path_the_files_come_from_the_hub(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    train, dev = [example(row) for row in range(10)], [example(3)]
    local = prepared(tokenizer, write(tmp_path, train, dev))
    for name, rows in (("train", train), ("validation", dev)):
        table = pyarrow.Table.from_pylist([of_the_hub(row) for row in rows])
        pyarrow.parquet.write_table(table, tmp_path / f"{name}-00000-of-00001.parquet")
    asked = []

    def hf_hub_download(repository: str, name: str, repo_type: str) -> str:
        asked.append((repository, name, repo_type))
        return str(tmp_path / Path(name).name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    hub = prepared(tokenizer, None)
    assert asked == [
        ("tau/commonsense_qa", f"data/{name}-00000-of-00001.parquet", "dataset") for name in ("train", "validation")
    ]
    assert {s: hub.fingerprint(s) for s in hub.splits} == {s: local.fingerprint(s) for s in local.splits}
    assert hub.splits["test"][0] == local.splits["test"][0]


def test_a_failed_download_says_what_to_do(tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any, **kwargs: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UserError, match=r"of CommonsenseQA could not be downloaded .* give data\.path=DIR"):
        prepared(tokenizer, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answerKey": "A", "question": "What?"}, "row 1 has a question of another form, expected its text, its conc"),
        (example(1, stem=None), "row 1 has a question of another form"),
        (example(1, choices=[{"label": "A", "text": "x"}, {"label": "C", "text": "y"}]), "choices labelled A, B, …"),
        (example(1, choices=[{"label": "A", "text": "x"}] * 5), "choices labelled A, B, …"),
        (example(1, choices=["x", "y"]), "row 1 has a question of another form"),
        (
            example(1, choices=[{"label": letter, "text": letter} for letter in "ABCD"]),
            "Row 1 of the source of the test split of data=cosqa has 4 choices, expected 5 as in the other questions",
        ),
        ({**example(1), "answerKey": "F"}, "row 1 has the unknown label 'F', expected one of A, B, C, D, E"),
    ],
)
def test_questions_of_another_form(tmp_path: Path, tokenizer: Any, row: dict[str, Any], message: str):
    path = write(tmp_path, [example(number) for number in range(5)], [example(0), row])
    with pytest.raises(UserError, match=message):
        prepared(tokenizer, path)


def test_questions_without_an_answer(tmp_path: Path, tokenizer: Any):
    train = [{**example(row), "answerKey": -1} if row in (2, 5) else example(row) for row in range(10)]
    dev = [example(0), {**example(1), "answerKey": ""}, {**example(2), "answerKey": -1}]
    del dev[1]["answerKey"]
    module = prepared(tokenizer, write(tmp_path, train, dev))
    assert module.splits["test"]["label"][:] == [0, -1, -1]
    assert "test: 2 of 3 rows have no label" in module.notes.lines
    used = [*module.splits["train"]["source_index"], *module.splits["validation"]["source_index"]]
    assert sorted(used) == [0, 1, 3, 4, 6, 7, 8, 9]
    assert module.report["no_gold_label"]["count"] == 2
    train[3]["answerKey"] = None
    with pytest.raises(UserError, match="row 3 has an empty label"):
        prepared(tokenizer, write(tmp_path, train, dev))


def test_a_validation_split_of_everything(tmp_path: Path, tokenizer: Any):
    path = write(tmp_path, [example(0), example(1)], [example(2)])
    with pytest.raises(
        UserError, match=r"data\.validation_size=3, expected between 1 and 1, the labelled questions of"
    ):
        prepared(tokenizer, path)


def test_published_sizes_lengths_and_concepts(tokenizer: Any, shared_data: Path):
    module = CosqaDataModule(path=str(shared_data / "commonsenseqa"), limit={"train": 300, "validation": 30})
    sources = module.load_splits()
    assert {split: len(rows.labels) for split, rows in sources.items()} == {
        "train": 8767, "validation": 974, "test": 1221,
    }  # fmt: skip
    concepts = {split: set(rows.columns["concept"]) for split, rows in sources.items()}
    assert len(concepts["train"] | concepts["validation"]) == 2151
    assert len(concepts["test"]) == 785
    module.prepare(tokenizer)
    assert max(token_lengths(module.splits["train"])) <= 128
    assert {len(question) for question in module.splits["test"]["input_ids"]} == {5}
    first = json.loads((shared_data / "commonsenseqa" / "dev_rand_split.jsonl").read_text("utf-8").split("\n")[0])
    assert module.splits["test"][0]["question"] == first["question"]["stem"]
    assert "ABCDE"[module.splits["test"][0]["label"]] == first["answerKey"]
