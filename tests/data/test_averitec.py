"""AVeriTeC: its schema on written rows, its traps on the real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from twinlens.attribution.errors import UserError
from twinlens.data.averitec import LABELS, AveritecDataModule, download, evidence_text

QUESTIONS = [
    {
        "question": "Was it so?",
        "answers": [
            {"answer": "Yes", "answer_type": "Boolean", "boolean_explanation": "It was."},
            {"answer": "Partly", "answer_type": "Abstractive"},
        ],
    },
    {"question": "Who said it?", "answers": [{"answer": "No answer could be found.", "answer_type": "Unanswerable"}]},
    {"question": "When?", "answers": []},
]


def example(row: int, **changes: Any) -> dict[str, Any]:
    return {"claim": f"Claim {row}.", "label": LABELS[row % 4], "questions": QUESTIONS, "speaker": None, **changes}


def write(folder: Path, train: list[dict[str, Any]], dev: list[dict[str, Any]]) -> str:
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "dev.json").write_text(json.dumps(dev))
    return str(folder)


def prepared(tokenizer: Any, path: str | None, **options: Any) -> AveritecDataModule:
    module = AveritecDataModule(path=path, **options)
    module.prepare(tokenizer)
    return module


@pytest.fixture(scope="module")
def real(tokenizer: Any, shared_data: Path) -> AveritecDataModule:
    return prepared(tokenizer, str(shared_data / "averitec"))


def test_evidence_of_both_templates():
    assert evidence_text(QUESTIONS, full=False) == (
        "(0)Was it so? Yes(1)Who said it? No answer could be found.(2)When?"
    )
    assert evidence_text(QUESTIONS, full=True) == (
        "(0)Was it so? Yes It was. Partly(1)Who said it? No answer could be found.(2)When?"
    )


def test_prompt_and_splits(tmp_path: Path, tokenizer: Any):
    path = write(tmp_path, [example(row) for row in range(10)], [example(row) for row in range(3)])
    module = prepared(tokenizer, path, validation_size=4)
    assert {split: len(rows) for split, rows in module.splits.items()} == {"train": 6, "validation": 4, "test": 3}
    test = module.splits["test"][1]
    assert tokenizer.decode(test["input_ids"]) == (
        "<bos>Claim : Claim 1./ Evidence : (0)Was it so? Yes(1)Who said it? No answer could be found.(2)When?/ Answer :"
    )
    assert module.label_names[test["label"]] == "Refuted"
    full = prepared(tokenizer, path, validation_size=4, template="full")
    assert "It was. Partly" in tokenizer.decode(full.splits["test"][1]["input_ids"])
    own = prepared(tokenizer, path, validation_size=4, template="{claim} ?")
    assert tokenizer.decode(own.splits["test"][1]["input_ids"]) == "<bos>Claim 1. ?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "False"}, r"dev\.json row 1 has the unknown label 'False', expected one of Supported, Refuted"),
        ({"claim": None}, r"dev\.json row 1 has a claim or questions of another form"),
        ({"questions": {"a": 1}}, r"dev\.json row 1 has a claim or questions of another form"),
        ({"questions": [{"question": "x", "answers": [{"answer": 3}]}]}, "has a claim or questions of another form"),
    ],
)
def test_rows_of_another_form(tmp_path: Path, tokenizer: Any, changes: dict[str, Any], message: str):
    path = write(tmp_path, [example(row) for row in range(10)], [example(0), example(1, **changes)])
    with pytest.raises(UserError, match=message):
        prepared(tokenizer, path, validation_size=4)


def test_rows_without_a_label(tmp_path: Path, tokenizer: Any):
    train = [example(row, label=-1) if row in (2, 5) else example(row) for row in range(10)]
    dev = [example(0), example(1, label=None), example(2, label=-1), example(3, label="-1")]
    module = prepared(tokenizer, write(tmp_path, train, dev), validation_size=4)
    assert module.splits["test"]["label"][:] == [0, -1, -1, -1]
    assert "test: 3 of 4 rows have no label" in module.notes.lines
    used = [*module.splits["train"]["source_index"], *module.splits["validation"]["source_index"]]
    assert sorted(used) == [0, 1, 3, 4, 6, 7, 8, 9]
    assert module.report["no_gold_label"]["count"] == 2
    train[3]["label"] = None  # beside names of classes, nothing at all is a mistake in what is learned from
    with pytest.raises(UserError, match=r"train\.json row 3 has an empty label"):
        prepared(tokenizer, write(tmp_path, train, dev), validation_size=4)


def test_other_mistakes(tmp_path: Path, tokenizer: Any):
    with pytest.raises(UserError, match=r"train\.json does not exist"):
        prepared(tokenizer, str(tmp_path))
    with pytest.raises(UserError, match=r"data\.validation_size=300, expected between 1 and 1"):
        prepared(tokenizer, write(tmp_path, [example(0), example(1)], [example(0)]))
    with pytest.raises(UserError, match="The test split of data=averitec is empty"):
        prepared(tokenizer, write(tmp_path, [example(0), example(1)], []), validation_size=1)
    with pytest.raises(UserError, match=r"train\.json row \d has the columns claim, expected also label, questions"):
        prepared(tokenizer, write(tmp_path, [{"claim": "x"}] * 2, [example(0)]), validation_size=1)
    nothing = example(0, claim="", questions=[])
    with pytest.raises(UserError, match="Row 0 of the source of the test split of data=averitec has no token at all"):
        prepared(tokenizer, write(tmp_path, [example(0), example(1)], [nothing]), validation_size=1)


def test_without_path_the_files_come_from_the_hub(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path, [example(row) for row in range(10)], [example(0)])
    asked = []

    def hf_hub_download(repository: str, name: str, repo_type: str) -> str:
        asked.append((repository, name, repo_type))
        return str(Path(folder) / Path(name).name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    hub = prepared(tokenizer, None, validation_size=4)
    assert asked == [
        ("chenxwh/AVeriTeC", "data/train.json", "model"),
        ("chenxwh/AVeriTeC", "data/dev.json", "model"),
    ]
    local = prepared(tokenizer, folder, validation_size=4)
    assert {s: hub.fingerprint(s) for s in hub.splits} == {s: local.fingerprint(s) for s in local.splits}


@pytest.mark.parametrize(
    "error",
    [LocalEntryNotFoundError("no network and nothing cached"), RuntimeError("client closed"), OSError("disk full")],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception):
    def fail(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UserError, match=r"train\.json of AVeriTeC could not be downloaded .* give data\.path=DIR"):
        download("train.json")


def test_published_sizes_and_labels(real: AveritecDataModule):
    assert {split: len(rows) for split, rows in real.splits.items()} == {"train": 2768, "validation": 300, "test": 500}
    both = real.splits["train"]["label"][:] + real.splits["validation"]["label"][:]
    assert [both.count(label) for label in range(4)] == [849, 1742, 195, 282]
    rows = real.splits["train"]["source_index"][:] + real.splits["validation"]["source_index"][:]
    assert sorted(rows) == list(range(3068))
    assert real.splits["test"]["source_index"][:] == list(range(500))


def test_source_index_leads_to_the_claim(real: AveritecDataModule, shared_data: Path):
    source = json.loads((shared_data / "averitec" / "train.json").read_text(encoding="utf-8"))
    for row in real.splits["validation"]:
        published = source[row["source_index"]]
        assert row["claim"] == published["claim"]
        assert real.label_names[row["label"]] == published["label"]


def test_the_empty_claim_and_long_evidence_are_reported(real: AveritecDataModule):
    (index,) = real.report["empty_field"]["indices"]["train"]
    assert real.splits["train"][index]["source_index"] == 1948
    assert real.report["cut_text"]["count"] > 400
    assert real.report["cut_prompt"]["count"] == 0
    longest = max(len(ids) for rows in real.splits.values() for ids in rows["input_ids"])
    assert longest == 512


def test_cut_claims_keep_claim_and_prompt(real: AveritecDataModule, tokenizer: Any):
    for index in real.report["cut_text"]["indices"]["test"]:
        row = real.splits["test"][index]
        text = tokenizer.decode(row["input_ids"])
        assert text.startswith(f"<bos>Claim : {row['claim']}/ Evidence : (0)")
        assert text.endswith("/ Answer :")
