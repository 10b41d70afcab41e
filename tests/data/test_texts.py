"""Documents and queries of one's own: what counts, windows, files, and every refusal with its file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.data.texts import TextsDataModule
from twinlens.models.backbone import load_tokenizer

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
QUERY = {"prompt": "The month that comes after May is", "completion": " June."}


@pytest.fixture(scope="module")
def tokenizer(repository: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(repository / "models" / "facts"))


def written(path: Path, *rows: object) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def prepared(folder: Path, tokenizer: Any, *rows: object, queries: Any = (QUERY,), **options: Any) -> TextsDataModule:
    options = {"queries": written(folder / "questions.jsonl", *queries), **options}
    data = TextsDataModule(train=written(folder / "docs.jsonl", *rows), **options)
    data.prepare(tokenizer)
    return data


def counted(data: TextsDataModule, tokenizer: Any, row: int = 0) -> str:
    """The text of the tokens that count."""
    found = data.splits["train"][row]
    return tokenizer.decode(
        [token for token, counts in zip(found["input_ids"], found["counts"], strict=True) if counts]
    )


def test_what_counts(tmp_path: Path, tokenizer: Any) -> None:
    """All of a text but the token that begins it, of a completion its own tokens, of a chat the assistant's turns."""
    tokenizer.chat_template = CHAT
    talk = [("user", "The month after May?"), ("assistant", "June"), ("user", "And then?"), ("assistant", "July")]
    data = prepared(
        tmp_path,
        tokenizer,
        {"text": "The capital of France is Paris."},
        {"prompt": "The capital of France is", "completion": " Paris."},
        {"messages": [{"role": role, "content": content} for role, content in talk]},
        show=1,
    )
    assert [counted(data, tokenizer, row) for row in range(3)] == [
        " The capital of France is Paris.", " Paris.", "June\nJuly\n",
    ]  # fmt: skip
    train = data.splits["train"]
    assert [row["input_ids"][0] == tokenizer.bos_token_id for row in train] == [True, True, True]
    assert train["document"][:] == ["docs.jsonl row 0", "docs.jsonl row 1", "docs.jsonl row 2"]
    shown = [line for line in data.notes.lines if line.startswith(("train", "test"))]
    assert [line.split(":")[0] for line in shown] == ["train 0", "test 0"]
    assert "May is[ June][.]" in shown[1]


def test_queries_are_read_in_one_piece_with_what_follows(tmp_path: Path, tokenizer: Any) -> None:
    """Prompt and completion are the tokens of their joint text; completion and foil share the prompt."""
    foils = ({**QUERY, "foil": " July."}, {"prompt": "The month that comes after M", "completion": "ay is June."})
    data = prepared(tmp_path, tokenizer, {"text": "a"}, queries=foils)
    for row, given in zip(data.splits["test"], foils, strict=True):
        start = [tokenizer.bos_token_id]
        for name, ids in (("completion", row["answer_ids"]), ("foil", row["foil_ids"])):
            whole = tokenizer(given["prompt"] + given.get(name, ""), add_special_tokens=False)["input_ids"]
            assert row["input_ids"] + ids == start + whole or not given.get(name)
        assert row["label"] == row["answer_ids"][0]
    assert any("1 of 2 go on from their prompt without a space" in line for line in data.notes.lines)
    assert any("1 of 2 name a foil" in line for line in data.notes.lines)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_long_document_stays_one_row(tmp_path: Path, tokenizer: Any, side: str) -> None:
    """Windows begin as texts do, lose no token, and go into batches with a mask of what counts."""
    text = " ".join(f"The number after {number} is {number + 1}." for number in range(12))
    data = prepared(
        tmp_path, tokenizer, {"text": text}, {"text": "The capital of France is Paris."}, max_length=32,
        padding_side=side,
    )  # fmt: skip
    long, short = data.splits["train"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = [[tokenizer.bos_token_id, *ids[start : start + 31]] for start in range(0, len(ids), 31)]
    assert long["input_ids"] == [token for window in windows for token in window]
    assert (long["windows"], short["windows"], sum(long["counts"])) == (len(windows), 1, len(ids))
    assert any(f"1 documents are longer than 32 tokens (data.max_length) and are read in {len(windows)} windows" in line
               for line in data.notes.lines)  # fmt: skip
    (batch,) = data.predict_dataloader_for("train", [[0, 1]])
    width = 32 * len(windows)
    assert {name: tuple(batch[name].shape) for name in ("input_ids", "attention_mask", "loss_mask", "window")} == {
        "input_ids": (2, width), "attention_mask": (2, width), "loss_mask": (2, width), "window": (2,),
    }  # fmt: skip
    for row, found in enumerate((long, short)):
        kept = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][kept].tolist() == found["input_ids"]
        assert batch["loss_mask"][row][kept].bool().tolist() == found["counts"]
    last = batch["attention_mask"][0].view(-1, 32)[-1]
    assert bool(last[0]) == (side == "right" or bool(last.all()))  # each window is padded by itself
    (alone,) = data.predict_dataloader_for("train", [[1]])
    assert alone["input_ids"].shape == (1, len(short["input_ids"]))
    assert "window" not in alone


def test_files_of_every_kind(tmp_path: Path, tokenizer: Any) -> None:
    """Plain text, JSON of texts, Parquet, and folders of them at any depth; what is not read is said."""
    corpus = tmp_path / "corpus"
    (corpus / "more").mkdir(parents=True)
    (corpus / "a.txt").write_text("First line.\nSecond line.\n")
    (corpus / "b.json").write_text(json.dumps(["One.", "Two."]))
    datasets.Dataset.from_dict({"text": ["Three."]}).to_parquet(str(corpus / "more" / "c.parquet"))
    (corpus / "picture.png").write_bytes(b"x")
    data = TextsDataModule(train=str(corpus), prompt="The", completion=" end")
    data.prepare(tokenizer)
    assert data.splits["train"]["completion"][:] == ["First line.\nSecond line.\n", "One.", "Two.", "Three."]
    assert data.splits["train"]["document"][:] == ["a.txt row 0", "b.json row 0", "b.json row 1", "c.parquet row 0"]
    assert any("picture.png" in line for line in data.notes.lines)


def test_validation_is_a_share_or_a_file(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": f"The number is {number}."} for number in range(10)]
    data = prepared(tmp_path, tokenizer, *rows, validation_fraction=0.2)
    splits = {name: data.splits[name]["source_index"][:] for name in ("train", "validation")}
    assert sorted(splits["train"] + splits["validation"]) == list(range(10))
    assert len(splits["validation"]) == 2
    assert [row["completion"] for row in data.splits["train"]] == [rows[at]["text"] for at in splits["train"]]


def test_fingerprints_tell_what_counts_and_what_follows(tmp_path: Path, tokenizer: Any) -> None:
    plain = prepared(tmp_path, tokenizer, {"text": "The capital is Paris."})
    masked = prepared(tmp_path, tokenizer, {"prompt": "The capital is", "completion": " Paris."})
    assert plain.splits["train"]["input_ids"][:] == masked.splits["train"]["input_ids"][:]
    assert plain.fingerprint("train") != masked.fingerprint("train")
    foil = prepared(tmp_path, tokenizer, {"text": "a"}, queries=[{**QUERY, "foil": " July."}])
    assert foil.fingerprint("test") != plain.fingerprint("test")


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "Yes."} for role in roles]}


REFUSED_DOCUMENTS = {
    "no text": ({"title": "x"}, "row 1 has none of text, prompt and completion, or messages (it has: title)"),
    "no token": ({"text": ""}, "row 1 has no token that counts (1 in all)"),
    "no completion": ({"prompt": "Yes", "completion": ""}, "row 1 has no token that counts (3 in all)"),
    "no assistant": (turns("user"), "row 1 has messages without a turn of the assistant"),
    "no turn": ({"messages": ["hello"]}, "row 1 has 'hello' as turn 0 of messages"),
    "no text but a list": ({"text": ["a"]}, "row 1 has a list in the column text"),
}


@pytest.mark.parametrize("case", REFUSED_DOCUMENTS)
def test_documents_that_are_refused(tmp_path: Path, tokenizer: Any, case: str) -> None:
    row, expected = REFUSED_DOCUMENTS[case]
    with pytest.raises(UserError) as refused:
        prepared(tmp_path, tokenizer, {"text": "fine"}, row)
    assert f"{tmp_path}/docs.jsonl {expected}" in str(refused.value)


def test_templates_that_are_refused(tmp_path: Path, repository: Path) -> None:
    tokenizer = load_tokenizer(str(repository / "models" / "facts"))
    for template, expected in (
        (None, "row 0 has messages, but the model's tokenizer has no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "refuses the messages (roles must alternate)"),
        ("{{ messages | length }}{{ messages[-1].content }}", "writes turn 0 differently once others follow"),
    ):
        tokenizer.chat_template = template
        with pytest.raises(UserError, match=r"docs\.jsonl row 0") as refused:
            prepared(tmp_path, tokenizer, turns("assistant", "user"))
        assert expected in str(refused.value)


REFUSED_QUERIES = {
    "no prompt": ({"question": "x"}, "row 1 has no prompt (it has: question)"),
    "no completion": ({"prompt": "Yes", "completion": " "}, "row 1 has an empty completion"),
    "the same foil": ({**QUERY, "foil": " June."}, "row 1 has the same text ' June.' as completion and foil"),
    "cut": ({"prompt": "one " * 40, "completion": " June."}, "so that the completion would be cut"),
    "cut foil": ({**QUERY, "foil": " one" * 40}, "so that the foil would be cut"),
}


@pytest.mark.parametrize("case", REFUSED_QUERIES)
def test_queries_that_are_refused(tmp_path: Path, tokenizer: Any, case: str) -> None:
    row, expected = REFUSED_QUERIES[case]
    with pytest.raises(UserError) as refused:
        prepared(tmp_path, tokenizer, {"text": "fine"}, queries=[QUERY, row], max_length=32)
    assert f"{tmp_path}/questions.jsonl row 1" in str(refused.value)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "has neither data.queries nor data.prompt"),
        ({"prompt": "a", "queries": "b"}, "has both data.queries and data.prompt"),
        ({"queries": "b", "foil": " c"}, "data.foil has no data.prompt"),
        ({"prompt": "a", "completion": " b", "foil": " b"}, "data.prompt has the same text ' b'"),
        ({"prompt": "a"}, "data.prompt has an empty completion"),
        ({"prompt": "a", "generate": -1}, "data.generate=-1"),
        ({"prompt": "a", "completion": " b", "validation_fraction": 1.0}, "data.validation_fraction=1.0"),
        ({"prompt": "a", "completion": " b", "train": "nowhere.jsonl"}, "nowhere.jsonl does not exist"),
        ({"prompt": "a", "completion": " b", "train": "."}, "has no file that ends with"),
    ],
)
def test_settings_that_are_refused(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        TextsDataModule(**options).prepare(tokenizer)
    assert expected in str(refused.value)


def test_marks_of_documents_and_queries(tmp_path: Path, tokenizer: Any) -> None:
    """Words or numbers, empty for none, and a validation split takes its own; limits of no split limit nothing."""
    rows = [{"text": f"Snow is white {number}.", **({"fact": number} if number % 2 else {})} for number in range(6)]
    asked = [{**QUERY, "fact": 3, "topic": "months"}, {**QUERY, "topic": None}]
    data = prepared(
        tmp_path, tokenizer, *rows, queries=asked, evidence="fact", group="topic",
        validation_fraction=0.34, limit={"validation": 1},
    )  # fmt: skip
    assert data.splits["test"]["evidence"][:] == ["3", ""]
    assert data.splits["test"]["group"][:] == ["months", ""]
    numbers = [text.split()[-1].rstrip(".") for text in data.splits["train"]["completion"][:]]
    assert data.splits["train"]["evidence"][:] == [number if int(number) % 2 else "" for number in numbers]
    assert len(data.splits["validation"]) == 1
    whole = prepared(tmp_path, tokenizer, *rows, limit={"validation": 1, "train": 2})
    assert list(whole.splits) == ["train", "test"]
    assert "evidence" not in whole.splits["train"].column_names


def test_columns_that_are_not_read_are_said(tmp_path: Path, tokenizer: Any) -> None:
    data = prepared(
        tmp_path,
        tokenizer,
        {"text": "The capital of France is Paris.", "url": "a", "empty": "", "fact": "1"},
        {"text": "Paris.", "prompt": "The capital of France is", "completion": " Paris.", "fact": "2"},
        {"text": "Snow is white.", "prompt": "Which colour?", "fact": "3"},
        queries=[{**QUERY, "type": "month", "fact": "1", "author": "me", "text": None}],
        evidence="fact",
    )
    assert data.splits["train"]["prompt"] == ["", "The capital of France is", ""]
    assert [line for line in data.notes.lines if "not read" in line] == [
        "train: not read are the columns url, text, prompt",
        "queries: not read are the columns author",
    ]


def test_special_tokens_of_a_chat_are_its_templates(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<eos>{% endfor %}"
    said = []
    for row in (turns("assistant"), {"text": "Snow is<eos> white."}):
        said.append([line for line in prepared(tmp_path, tokenizer, row).notes.lines if "special" in line])
    assert said == [[], ["form: 1 of 2 texts hold special tokens written out: the model reads them as such"]]


def test_a_prompt_that_begins_as_texts_begin_holds_no_other_special_token(tmp_path: Path, tokenizer: Any) -> None:
    """Also with a foil, which is read behind the same prompt."""
    query = {**QUERY, "prompt": f"{tokenizer.bos_token}{QUERY['prompt']}", "foil": " May."}
    lines = prepared(tmp_path, tokenizer, {"text": "Snow is white."}, queries=[query]).notes.lines
    assert any("1 of 2 texts begin with" in line for line in lines)
    assert [line for line in lines if "special" in line] == []
