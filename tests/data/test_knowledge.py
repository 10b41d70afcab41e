"""Knowledge prompts: every format, the rule for the answer's first token, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from twinlens.attribution.errors import UserError
from twinlens.data.knowledge import KnowledgeDataModule
from twinlens.data.knowledge_formats import read_prompts, wikidata_type
from twinlens.data.prompts import answer_tokens

CAPITALS = [
    {"prompt": "The capital of France is", "answer": "Paris", "type": "capital"},
    {"prompt": "The capital of India is ", "answer": "New Delhi", "type": "capital"},
    {"prompt": "In France people speak", "answer": "French", "type": "language"},
    {"prompt": "In Spain people speak", "answer": None, "type": "language"},
]


@pytest.fixture(scope="module")
def fact_tokenizer(repository: Path) -> Any:
    return AutoTokenizer.from_pretrained(repository / "models" / "facts")


def jsonl(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def prepared(tokenizer: Any, **options: Any) -> KnowledgeDataModule:
    data = KnowledgeDataModule(**options)
    data.prepare(tokenizer)
    return data


def test_columns_labels_and_answer_ids(tmp_path: Path, fact_tokenizer: Any) -> None:
    data = prepared(fact_tokenizer, path=str(jsonl(tmp_path / "p.jsonl", CAPITALS)))
    assert list(data.splits) == ["test"]
    rows = data.splits["test"]
    assert rows["prompt"][1] == "The capital of India is"
    assert rows["answer"][3] == ""
    assert [fact_tokenizer.decode(ids).split() for ids in rows["answer_ids"]] == [
        ["Paris"], ["New", "Delhi"], ["French"], [],
    ]  # fmt: skip
    assert rows["label"][:] == [ids[0] if ids else -1 for ids in rows["answer_ids"]]
    assert rows["input_ids"][0][0] == fact_tokenizer.bos_token_id
    batch = next(iter(data.predict_dataloader_for("test", [[0, 3]])))
    assert batch["labels"].tolist() == [rows["label"][0], -1]


def test_without_a_path_the_own_facts_are_asked(fact_tokenizer: Any) -> None:
    rows = prepared(fact_tokenizer, types=["month", "capital"]).splits["test"]
    assert set(rows["type"]) == {"month", "capital"}
    assert rows["prompt"][0] == "The city called the capital of France is"
    assert rows["source_index"][-1] >= len(rows)


def test_one_prompt_needs_neither_answer_nor_company(fact_tokenizer: Any) -> None:
    silent = prepared(fact_tokenizer, prompt="The capital of France is").splits["test"]
    assert (silent["label"][:], silent["answer_ids"][:]) == ([-1], [[]])
    answered = prepared(fact_tokenizer, prompt="The capital of France is", prompt_answer="Paris").splits["test"]
    assert fact_tokenizer.decode(answered["label"][0]).strip() == "Paris"


def test_whole_answers_count_in_the_fingerprint_only_where_they_are_read(tmp_path: Path, fact_tokenizer: Any) -> None:
    longer = [*CAPITALS[:1], {**CAPITALS[1], "answer": "New Delhi city"}, *CAPITALS[2:]]
    files = [jsonl(tmp_path / name, rows) for name, rows in (("a.jsonl", CAPITALS), ("b.jsonl", longer))]

    def fingerprints(answer: Any) -> set[str]:
        return {prepared(fact_tokenizer, path=str(file), answer=answer).fingerprint("test") for file in files}

    assert (len(fingerprints("first")), len(fingerprints("full"))) == (1, 2)


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"answer": "   "}, {}, r"row 0 .* makes no token"),
        ({"type": "alone"}, {}, r"'alone' has a single prompt"),
        ({}, {"max_length": 3}, r"prompt of 6 tokens, but data\.max_length is 3"),
        ({"prompt": "the " * 300}, {"max_length": 999}, r"prompt of 301 tokens, but the model's length is 256"),
        ({"prompt": " "}, {}, r"row 0 .* expected text for the prompt"),
        ({"answer": 7}, {}, r"row 0 .* expected text for answer"),
        ({"answer": None, "answers": []}, {}, r"p\.jsonl row 0 has answers=\[\], expected a list of at least one"),
        ({"answer": None, "answers": "Paris"}, {}, r"row 0 has answers='Paris', expected a list"),
        ({"answer": None, "answers": ["Paris", 7]}, {}, r"row 0 has answers=\['Paris', 7\], expected a list"),
        ({"answer": None, "answers": ["Paris", " "]}, {}, r"row 0 has answers=.* more than spaces"),
        ({"answers": ["Paris"]}, {}, r"row 0 has answers beside answer='Paris', expected one form"),
        ({"answer": None, "answers": ["Paris"], "answer_id": 9}, {}, r"row 0 has answers beside answer_id=9"),
        ({}, {"types": ["colour"]}, r"'colour', expected some of capital, language"),
    ],
)
def test_bad_rows_are_named(
    tmp_path: Path, fact_tokenizer: Any, changed: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    file = jsonl(tmp_path / "p.jsonl", [{**CAPITALS[0], **changed}, CAPITALS[0], *CAPITALS])
    with pytest.raises(UserError, match=message):
        prepared(fact_tokenizer, path=str(file), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "all"}, "expected first or full"),
        ({"wording": "train"}, "expected validation or test"),
        ({"prompt": "a", "path": "b"}, "both set"),
        ({"prompt": " "}, "blank"),
        ({"prompt_answer": "Paris"}, r"no data\.prompt"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        KnowledgeDataModule(**options)


def test_an_answer_that_the_tokenizer_does_not_know_is_refused() -> None:
    core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert answer_tokens(tokenizer, ["a b"], ["b a"], ["row 0"]) == [[2, 1]]
    assert answer_tokens(tokenizer, ["a b"], [" b a"], ["row 0"]) == [[2, 1]]  # written with its space or without
    with pytest.raises(UserError, match=r"row 7 .* 'z'"):
        answer_tokens(tokenizer, ["a b"], ["z"], ["row 7"])


def test_answers_as_written_are_the_tokens_that_go_on(tmp_path: Path, shared_tokens: Any) -> None:
    """Of prompts cut out of texts at any token, the answer is the next token, within words too."""
    texts = [
        "Walking in the rain, she remembered Parisians speaking loudly.",
        "The unhappiest dog's name isn't Rexford!",
    ]
    rows, expected = [], []
    for text in texts:
        ids = shared_tokens(text, add_special_tokens=False)["input_ids"]
        for cut in range(2, len(ids)):
            before, whole = shared_tokens.decode(ids[:cut]), shared_tokens.decode(ids[: cut + 1])
            rows.append({"prompt": before, "answer": whole[len(before) :], "type": "any"})
            expected.append(ids[cut])
    assert any(row["answer"][0].isspace() for row in rows)
    assert any(not row["answer"][0].isspace() for row in rows)
    data = prepared(shared_tokens, path=str(jsonl(tmp_path / "p.jsonl", rows)))
    found = data.splits["test"]["label"][:]
    assert found == expected
    glued = sum(not row["answer"][0].isspace() for row in rows)
    assert any(f"taken as written; {glued} of {len(rows)} go on without one" in line for line in data.notes.lines)
    named = [{**row, "answer": None, "answer_id": token} for row, token in zip(rows, expected, strict=True)]
    data = prepared(shared_tokens, path=str(jsonl(tmp_path / "named.jsonl", named)))
    assert data.splits["test"]["label"][:] == expected
    assert data.splits["test"]["answer_ids"][:] == [[token] for token in expected]


@pytest.fixture(scope="module")
def shared_tokens(repository: Path) -> Any:
    """A byte-level tokenizer: what it decodes is what it was given."""
    return AutoTokenizer.from_pretrained(repository / "models" / "tiny")


def test_rows_may_list_the_answers_that_they_accept(tmp_path: Path, fact_tokenizer: Any) -> None:
    several = {**CAPITALS[0], "answer": None, "answers": ["Paris", "New Delhi", "Paris"]}
    data = prepared(fact_tokenizer, path=str(jsonl(tmp_path / "p.jsonl", [several, *CAPITALS[1:]])))
    rows = data.splits["test"]
    decoded = [[fact_tokenizer.decode(ids).split() for ids in accepted] for accepted in rows["accepted_ids"]]
    assert decoded == [[["Paris"], ["New", "Delhi"]], [["New", "Delhi"]], [["French"]], []]
    assert (rows["answer"][0], rows["answer_ids"][0]) == ("Paris", rows["accepted_ids"][0][0])
    assert "answers: 1 of 4 rows list the answers that they accept" in " ".join(data.notes.lines)
    written = [{**several, "answers": [" Paris", "is"]}, *CAPITALS[1:]]
    glued = prepared(fact_tokenizer, path=str(jsonl(tmp_path / "q.jsonl", written))).splits["test"]
    texts = [fact_tokenizer.decode(ids) for ids in glued["accepted_ids"][0]]
    assert [text.startswith(" ") for text in texts] == [True, False], "one answer with a space speaks for the file"


def test_a_space_at_the_end_of_a_prompt_is_the_answers(tmp_path: Path, fact_tokenizer: Any) -> None:
    rows = [{**CAPITALS[0], "answer": " Paris"}, {**CAPITALS[0], "prompt": CAPITALS[0]["prompt"] + " "}]
    labels = prepared(fact_tokenizer, path=str(jsonl(tmp_path / "p.jsonl", rows))).splits["test"]["label"][:]
    spaced = prepared(fact_tokenizer, path=str(jsonl(tmp_path / "q.jsonl", [CAPITALS[0]] * 2))).splits["test"]["label"]
    assert labels == spaced[:]


def test_a_limit_bounds_what_is_kept(tmp_path: Path, fact_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**CAPITALS[number % 2], "answer": "Paris"} for number in range(40)]
    file, glued = (
        jsonl(tmp_path / "p.jsonl", rows),
        jsonl(tmp_path / "q.jsonl", [*rows, {**rows[0], "answer": " Paris"}]),
    )
    whole = prepared(fact_tokenizer, path=str(glued), limit={"test": 4})
    monkeypatch.setattr("twinlens.data.file_readers.MOST_ROWS", 30)
    with pytest.raises(UserError, match=r"p\.jsonl has more than 30 rows"):
        prepared(fact_tokenizer, path=str(file))
    data = prepared(fact_tokenizer, path=str(file), limit={"test": 4})
    assert data.splits["test"]["source_index"][:] == [0, 1, 2, 3]
    assert "read the first 4 rows of p.jsonl" in data.notes.lines
    monkeypatch.setattr("twinlens.data.file_readers.MOST_ROWS", 100)
    assert [line for line in whole.notes.lines if "taken as written; 2 of 4" in line]  # the last answer has its say
    both = prepared(fact_tokenizer, path=str(tmp_path), limit={"test": 43})
    assert both.splits["test"]["source_index"][:] == list(range(43))
    assert "read the first 3 rows of q.jsonl" in both.notes.lines


@pytest.mark.parametrize("token", [-1, 10**6, "7", True, 1.5])
def test_a_token_that_does_not_exist_is_refused(tmp_path: Path, fact_tokenizer: Any, token: Any) -> None:
    jsonl(tmp_path / "p.jsonl", [*CAPITALS, {**CAPITALS[0], "answer_id": 1}])
    jsonl(tmp_path / "q.jsonl", [CAPITALS[0], {**CAPITALS[0], "answer_id": token}])
    said = r"q\.jsonl row 1 has answer_id=.*expected a token's number, 0 to \d+"  # of its own file, not of all
    with pytest.raises(UserError, match=said):
        prepared(fact_tokenizer, path=str(tmp_path))


def test_an_answer_without_a_token_names_its_file(tmp_path: Path, fact_tokenizer: Any) -> None:
    jsonl(tmp_path / "p.jsonl", CAPITALS)
    row = {"prompt": CAPITALS[0]["prompt"], "type": CAPITALS[0]["type"]}
    jsonl(tmp_path / "q.jsonl", [CAPITALS[0], {**row, "answer": " "}])
    with pytest.raises(UserError, match=r"q\.jsonl row 1 has the answer ' ', of which"):
        prepared(fact_tokenizer, path=str(tmp_path))


# -- formats -----------------------------------------------------------------------------------------------------


def test_pararel_takes_the_first_pattern_that_ends_with_the_answer(tmp_path: Path) -> None:
    jsonl(tmp_path / "patterns_P36.jsonl", [{"pattern": "[Y] rules [X]."}, {"pattern": "The capital of [X] is [Y] ."}])
    jsonl(tmp_path / "facts_P36.jsonl", [{"sub_label": "France", "obj_label": "Paris"}])
    expected = {"prompt": "The capital of France is", "answer": "Paris", "type": "capital"}
    expected["place"] = f"{tmp_path / 'facts_P36.jsonl'} row 0"
    assert read_prompts(tmp_path) == read_prompts(tmp_path / "facts_P36.jsonl") == [expected]
    jsonl(tmp_path / "patterns_P36.jsonl", [{"pattern": "[Y] rules [X]."}])
    with pytest.raises(UserError, match=r"no pattern that ends with \[Y\]"):
        read_prompts(tmp_path)


def test_relations_take_their_first_template(tmp_path: Path) -> None:
    relation = {
        "name": "fruit outside color",
        "properties": {"range_name": "color"},
        "prompt_templates": ["On the outside, {} are", "{} look"],
        "samples": [{"subject": "limes", "object": "green"}],
    }
    (tmp_path / "r.json").write_text(json.dumps(relation), encoding="utf-8")
    expected = {"prompt": "On the outside, limes are", "answer": "green", "type": "colour"}
    assert read_prompts(tmp_path) == [{**expected, "place": f"{tmp_path / 'r.json'} row 0"}]
    (tmp_path / "r.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="is no relation"):
        read_prompts(tmp_path)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("The country of citizenship of Moana Pozzi is", "country"),
        ("The native language of Mary Anderson is", "language"),
        ("The color of the flag of Togo is", "colour"),
        ("The sport played by Shane Victorino is", "sport"),
        ("Jinan is capital of", "other"),
    ],
)
def test_wikidata_prompts_say_their_type(context: str, expected: str) -> None:
    assert wikidata_type(context) == expected


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.jsonl or \.json file"):
        read_prompts(tmp_path)
    with pytest.raises(UserError, match="keys text, label"):
        read_prompts(jsonl(tmp_path / "p.jsonl", [{"text": "a", "label": "b"}]))
    with pytest.raises(UserError, match="row 1 has no type"):
        read_prompts(jsonl(tmp_path / "p.jsonl", [CAPITALS[0], {"prompt": "a"}]))


def test_real_files_are_read(shared_data: Path) -> None:
    questions = read_prompts(shared_data / "qa_facts" / "derived_triviaqa_six_types.jsonl")
    assert len(questions) == 397
    assert questions[0]["prompt"].startswith("Question: ")
    wikidata = read_prompts(shared_data / "qa_facts" / "bigbench_qa_wikidata.jsonl")
    assert len(wikidata) == 20321
    assert {"country", "language", "capital", "colour"} <= {row["type"] for row in wikidata}
    assert len(read_prompts(shared_data / "pararel")) == 8740
    relations = read_prompts(shared_data / "relations_lre")
    assert len(relations) == 2927
    assert {"capital", "colour", "country", "language"} <= {row["type"] for row in relations}
